package cronspec

import (
	"math/bits"
	"strings"
)

// members lists a set's numbers in order.
func members(set uint64) []int {
	list := make([]int, 0, bits.OnesCount64(set))
	for ; set != 0; set &= set - 1 {
		list = append(list, bits.TrailingZeros64(set))
	}
	return list
}

func setOf(list []int) uint64 {
	var set uint64
	for _, n := range list {
		set |= 1 << n
	}
	return set
}

// isRun reports whether the numbers of a set that isn't empty follow one
// another without a hole.
func isRun(set uint64) bool {
	set >>= bits.TrailingZeros64(set)
	return set&(set+1) == 0
}

// evenStep returns the one distance between a set's neighbours that also leads
// from the last around the circle to the first.
func evenStep(set uint64, circle int) (step int, even bool) {
	list := members(set)
	if len(list) == 0 || circle%len(list) != 0 {
		return 0, false
	}
	step = circle / len(list)
	for i := 1; i < len(list); i++ {
		if list[i]-list[i-1] != step {
			return 0, false
		}
	}
	return step, true
}

// runs cuts an ordered list where numbers are left out, into first and last.
func runs(list []int) [][2]int {
	var out [][2]int
	for i, n := range list {
		if i == 0 || n != list[i-1]+1 {
			out = append(out, [2]int{n, n})
		}
		out[len(out)-1][1] = n
	}
	return out
}

// numberList names numbers, three or more in a row as "a to c".
func numberList(list []int, name func(int) string) string {
	var parts []string
	for _, r := range runs(list) {
		switch r[1] - r[0] {
		case 0:
			parts = append(parts, name(r[0]))
		case 1:
			parts = append(parts, name(r[0]), name(r[1]))
		default:
			parts = append(parts, name(r[0])+" to "+name(r[1]))
		}
	}
	return and(parts)
}

func and(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " and " + parts[len(parts)-1]
}
