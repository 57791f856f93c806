package agent

import (
	"context"
	"strings"
	"sync"
)

// gate lets one job at a time work on a repository, in the order in which they
// came.
type gate struct {
	mu    sync.Mutex
	lines map[string][]chan struct{} // the first one is inside
}

func newGate() *gate { return &gate{lines: map[string][]chan struct{}{}} }

// queue takes a place in the repository's line. The channel closes when it is
// this one's turn; leave gives the place back, inside or still waiting.
func (g *gate) queue(repository string) (turn <-chan struct{}, leave func()) {
	key := strings.TrimRight(strings.TrimPrefix(repository, "local:"), "/")
	mine := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines[key] = append(g.lines[key], mine)
	if len(g.lines[key]) == 1 {
		close(mine)
	}
	return mine, func() { g.leave(key, mine) }
}

func (g *gate) leave(key string, mine chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	line := g.lines[key]
	for i, place := range line {
		if place != mine {
			continue
		}
		line = append(line[:i:i], line[i+1:]...)
		if i == 0 && len(line) > 0 {
			close(line[0])
		}
		break
	}
	if len(line) == 0 {
		delete(g.lines, key)
		return
	}
	g.lines[key] = line
}

// wait waits for a turn; false when ctx or cancelled came first.
func wait(ctx context.Context, turn <-chan struct{}, cancelled <-chan struct{}) bool {
	select {
	case <-turn:
		return true
	case <-ctx.Done():
	case <-cancelled:
	}
	return false
}
