package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"resticfleet/agent/protocol"
)

// polled is the polling half of the test server.
type polled struct {
	boot    string
	session int // the link that may poll
	posts   int
	polls   int
	down    []protocol.Envelope
}

func (s *server) pollable(mux *http.ServeMux) {
	mux.HandleFunc("POST /agent/v1/messages", s.post)
	mux.HandleFunc("GET /agent/v1/commands", s.commands)
}

func (s *server) polling(w http.ResponseWriter, r *http.Request) (ok bool) {
	var boot, detail string
	var status int
	s.with(func() { boot, status, detail = s.poll.boot, s.pollRefusal, s.detail })
	w.Header().Set("Resticfleet-Boot", boot)
	switch {
	case status != 0:
		problem(w, status, detail)
	case r.Header.Get("Authorization") != "Bearer "+testToken:
		problem(w, http.StatusUnauthorized, "The credential is not known.")
	default:
		return true
	}
	return false
}

func (s *server) post(w http.ResponseWriter, r *http.Request) {
	s.serving.Add(1)
	defer s.serving.Done()
	s.with(func() { s.poll.posts++ })
	if !s.polling(w, r) {
		return
	}
	var batch struct{ Messages []protocol.Envelope }
	if err := json.NewDecoder(r.Body).Decode(&batch); err != nil {
		s.t.Errorf("a batch: %v", err)
	}
	ack := protocol.Ack{Acknowledged: []string{}}
	down := []protocol.Envelope{}
	superseded := false
	for _, e := range batch.Messages {
		if e.Type == protocol.TypeHello {
			hello, err := protocol.Decode[protocol.Hello](e)
			if err != nil {
				s.t.Error(err)
			}
			s.with(func() {
				s.links++
				s.poll.session, s.conn = s.links, nil
				down = append(down, s.welcome(s.links))
				down = append(down, s.first...)
				s.hellos = append(s.hellos, hello)
				s.kinds = append(s.kinds, protocol.LinkPolling)
			})
			ack.Acknowledged = append(ack.Acknowledged, e.ID)
			continue
		}
		var verdict string
		s.with(func() {
			if r.URL.Query().Get("session") != fmt.Sprint("s", s.poll.session) {
				superseded = true
				return
			}
			m := got{s.poll.session, e}
			s.messages = append(s.messages, m)
			verdict = s.verdict(m)
		})
		switch verdict {
		case "":
			ack.Acknowledged = append(ack.Acknowledged, e.ID)
		case "drop":
		default:
			ack.Rejected = append(ack.Rejected, protocol.Rejection{ID: e.ID, Reason: verdict})
		}
	}
	if superseded {
		problem(w, http.StatusConflict, "A newer link has taken over.")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"acknowledged": ack.Acknowledged, "rejected": ack.Rejected, "messages": down})
}

func (s *server) commands(w http.ResponseWriter, r *http.Request) {
	s.serving.Add(1)
	defer s.serving.Done()
	s.with(func() { s.poll.polls++ })
	if !s.polling(w, r) {
		return
	}
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("wait"), 64)
	if err != nil {
		s.t.Error(err)
	}
	over := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer over.Stop()
	for {
		s.mu.Lock()
		current, moved := r.URL.Query().Get("session") == fmt.Sprint("s", s.poll.session), s.moved
		down := s.poll.down
		if current {
			s.poll.down = nil
		}
		s.mu.Unlock()
		switch {
		case !current:
			problem(w, http.StatusConflict, "A newer link has taken over.")
			return
		case len(down) > 0:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"messages": down})
			return
		}
		select {
		case <-moved:
		case <-over.C:
			w.WriteHeader(http.StatusNoContent)
			return
		case <-r.Context().Done():
			return
		}
	}
}

// tell gives a message to the agent that polls.
func (s *server) tell(typ string, payload any) {
	s.with(func() { s.poll.down = append(slices.Clone(s.poll.down), protocol.Seal("x", typ, payload)) })
}
