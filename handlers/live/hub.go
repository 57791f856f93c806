// Package live fans hints out inside one server: agent links and the event
// streams of browsers hear that something may have changed, and look.
package live

import (
	"sync"

	"resticfleet/jobs"
)

// Hub hands topics to those who subscribed to them. Publishing never waits: a
// slow subscriber finds its topics gathered, each once, when it looks.
type Hub struct {
	mu   sync.Mutex
	subs map[jobs.Topic]map[*Subscription]struct{}
	// relay hands topics on to the other servers; nil with one server. It is
	// set before the first Publish.
	relay func([]jobs.Topic)
	// first hears of topics before Publish returns.
	first func([]jobs.Topic)
}

// NewHub makes an empty hub.
func NewHub() *Hub { return &Hub{subs: map[jobs.Topic]map[*Subscription]struct{}{}} }

// Publish wakes everybody who subscribed to any of the topics, here and on the
// other servers.
func (h *Hub) Publish(topics ...jobs.Topic) {
	h.deliver(topics)
	if h.relay != nil {
		h.relay(topics)
	}
}

// First makes f hear of every topic before its publisher goes on; it is called
// once, before the first Publish.
func (h *Hub) First(f func([]jobs.Topic)) { h.first = f }

func (h *Hub) deliver(topics []jobs.Topic) {
	if h.first != nil {
		h.first(topics)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, topic := range topics {
		h.wakeTopic(topic)
	}
}

// wakeAll makes every subscriber look.
func (h *Hub) wakeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for topic := range h.subs {
		h.wakeTopic(topic)
	}
}

func (h *Hub) wakeTopic(topic jobs.Topic) {
	for s := range h.subs[topic] {
		s.pending[topic] = struct{}{}
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Subscription is one listener. Close it when done.
type Subscription struct {
	hub     *Hub
	topics  []jobs.Topic
	wake    chan struct{}
	pending map[jobs.Topic]struct{}
}

// Subscribe listens to topics from now on.
func (h *Hub) Subscribe(topics ...jobs.Topic) *Subscription {
	s := &Subscription{hub: h, topics: topics, wake: make(chan struct{}, 1), pending: map[jobs.Topic]struct{}{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, topic := range topics {
		if h.subs[topic] == nil {
			h.subs[topic] = map[*Subscription]struct{}{}
		}
		h.subs[topic][s] = struct{}{}
	}
	return s
}

// Wake has a value whenever Take has something to give.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// Take returns the topics published since the last call.
func (s *Subscription) Take() []jobs.Topic {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	topics := make([]jobs.Topic, 0, len(s.pending))
	for topic := range s.pending {
		topics = append(topics, topic)
	}
	clear(s.pending)
	return topics
}

// Close stops listening; it may be called more than once.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	for _, topic := range s.topics {
		delete(s.hub.subs[topic], s)
		if len(s.hub.subs[topic]) == 0 {
			delete(s.hub.subs, topic)
		}
	}
}

// Watch is Subscribe for who waits for one topic.
func (h *Hub) Watch(topic jobs.Topic) (wake <-chan struct{}, stop func()) {
	s := h.Subscribe(topic)
	return s.Wake(), s.Close
}
