package weather

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// line is one connection as the weather has it: the agent's end, or the
// server's.
type line struct {
	net.Conn
	p      *Proxy
	number uint64
	// served is the server's end: it is taken to bits like the agent's, but the
	// rest happens on the agent's end for both.
	served bool

	pieces  [2]atomic.Uint64 // in and out
	idle    *time.Timer      // nil without
	idleFor time.Duration
	over    sync.Once

	mu      sync.Mutex
	stalled chan struct{} // closed by a stall
}

func newLine(p *Proxy, c net.Conn, number uint64, served bool) *line {
	l := &line{Conn: c, p: p, number: number, served: served, stalled: make(chan struct{}), idleFor: p.climate().Idle}
	if l.idleFor > 0 && !served {
		l.idle = time.AfterFunc(l.idleFor, func() {
			if !l.isStalled() && p.has(l) {
				p.count(Idle)
				l.cut()
			}
		})
	}
	return l
}

func (l *line) isStalled() bool {
	select {
	case <-l.stalled:
		return true
	default:
		return false
	}
}

func (l *line) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isStalled() {
		close(l.stalled)
	}
}

// cut ends the connection without a word.
func (l *line) cut() {
	if tcp, ok := l.Conn.(*net.TCPConn); ok && !l.served {
		_ = tcp.SetLinger(0)
	}
	l.end()
}

func (l *line) end() {
	l.over.Do(func() {
		if l.idle != nil {
			l.idle.Stop()
		}
		l.p.forget(l)
		_ = l.Conn.Close()
	})
}

// Close is nothing the other end hears of while the line is stalled.
func (l *line) Close() error {
	if !l.isStalled() {
		l.end()
	}
	return nil
}

// weather is what happens to one piece of bytes; an error ends the line, and
// size is how much of it passes at once.
func (l *line) weather(direction uint64, size int) (int, error) {
	if l.idle != nil {
		l.idle.Reset(l.idleFor)
	}
	c, s := l.p.climate(), l.p.seed
	place := []uint64{l.number, direction, l.pieces[direction].Add(1)}
	if l.served {
		place[1] += 2
	} else {
		if l.p.happens(c, Stall, place...) {
			l.stall()
		}
		if l.p.happens(c, Cut, place...) {
			l.cut()
			return 0, net.ErrClosed
		}
	}
	if l.isStalled() {
		<-l.p.done
		return 0, net.ErrClosed
	}
	if l.p.happens(c, Delay, place...) {
		l.p.pause(time.Duration(s.draw("how long", place...).Int64N(int64(c.delayAtMost()))))
	}
	if l.p.happens(c, Slice, place...) {
		size = min(size, 1+s.draw("how much", place...).IntN(16))
	}
	return size, nil
}

func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if l.isStalled() { // what came meanwhile, and be it the end, is swallowed
		<-l.p.done
		return 0, net.ErrClosed
	}
	if n > 0 {
		if _, err := l.weather(0, n); err != nil {
			return 0, err
		}
	}
	return n, err
}

func (l *line) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		size, err := l.weather(1, len(b)-written)
		if err != nil {
			return written, err
		}
		n, err := l.Conn.Write(b[written : written+size])
		if written += n; err != nil {
			return written, err
		}
	}
	return written, nil
}

// listener makes lines of what it accepts.
type listener struct {
	net.Listener
	p *Proxy
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.p.add(c), nil
}
