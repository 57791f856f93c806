package chaos

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// balancer stands before the servers: each connection goes to the next one
// that answers.
type balancer struct {
	listener net.Listener

	mu       sync.Mutex
	backends []string
	next     int
	open     map[net.Conn]struct{}
	carrying sync.WaitGroup
}

func newBalancer(t testing.TB, backends int) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{listener: l, open: map[net.Conn]struct{}{}}
	for range backends {
		b.backends = append(b.backends, "127.0.0.1:0")
	}
	b.carrying.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.carrying.Go(func() { b.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.cut()
		b.carrying.Wait()
	})
	return b
}

func (b *balancer) url() string { return "http://" + b.listener.Addr().String() }

// use says where a backend is.
func (b *balancer) use(n int, address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends[n] = address
}

// address is where a backend is, or should be.
func (b *balancer) address(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.backends[n]
}

// cut ends every connection.
func (b *balancer) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.open {
		_ = c.Close()
	}
}

func (b *balancer) dial() net.Conn {
	for range b.backends {
		b.mu.Lock()
		b.next++
		address := b.backends[b.next%len(b.backends)]
		b.mu.Unlock()
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			return conn
		}
	}
	return nil
}

func (b *balancer) carry(from net.Conn) {
	defer from.Close()
	to := b.dial()
	if to == nil {
		return
	}
	defer to.Close()
	b.mu.Lock()
	b.open[from], b.open[to] = struct{}{}, struct{}{}
	b.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_, _ = from.Close(), to.Close()
		})
	}
	both.Wait()
	b.mu.Lock()
	delete(b.open, from)
	delete(b.open, to)
	b.mu.Unlock()
}
