package agent

import (
	"context"
	"testing"
)

func open(turn <-chan struct{}) bool {
	select {
	case <-turn:
		return true
	default:
		return false
	}
}

func TestGateServesInOrderAndForgetsWhoLeaves(t *testing.T) {
	t.Parallel()
	g := newGate()
	first, leaveFirst := g.queue("/repo")
	second, leaveSecond := g.queue("local:/repo/")
	third, leaveThird := g.queue("/repo")
	other, leaveOther := g.queue("/another")
	if !open(first) || open(second) || open(third) || !open(other) {
		t.Fatal("not one at a time per repository")
	}
	leaveSecond() // cancelled while it waited
	if open(third) {
		t.Fatal("somebody else's leaving let the third in")
	}
	leaveFirst()
	if !open(third) {
		t.Fatal("the third waits for nobody")
	}
	leaveFirst() // twice does no harm
	leaveThird()
	leaveOther()
	if len(g.lines) != 0 {
		t.Errorf("left: %v", g.lines)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if wait(ctx, make(chan struct{}), nil) {
		t.Error("waited through the end")
	}
}
