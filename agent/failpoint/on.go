//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Built tells whether this build has the tag.
const Built = true

var (
	mu   sync.Mutex
	hits = map[string]int{} // by what was asked for
)

// Hit ends or stops this process if it was told to at this point.
func Hit(point string) {
	asked := os.Getenv(Env)
	file := ""
	if strings.HasPrefix(asked, "/") {
		file = asked
		text, _ := os.ReadFile(file) // nothing is asked yet, or no more
		asked = strings.TrimSpace(string(text))
	}
	at, rest, _ := strings.Cut(asked, " ")
	if at != point {
		return
	}
	number, action, _ := strings.Cut(rest, " ")
	n, _ := strconv.Atoi(number) // the first, unless told
	mu.Lock()
	hits[asked]++
	due := hits[asked] >= max(n, 1)
	if due {
		delete(hits, asked)
	}
	mu.Unlock()
	if !due || (file != "" && !taken(file)) {
		return
	}
	if action == "stop" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// taken claims the order for this process and says who that is.
func taken(file string) bool {
	if os.Remove(file) != nil {
		return false
	}
	_ = os.WriteFile(file+".hit", []byte(strings.Join(os.Args, " ")), 0o600)
	return true
}

// Planted tells whether this process is to make a mistake.
func Planted(mistake string) bool { return os.Getenv(PlantEnv) == mistake }

// Inherited is what a process must be given to be told the same.
func Inherited() []string {
	var env []string
	for _, name := range []string{Env, PlantEnv} {
		if value := os.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}
