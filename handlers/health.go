package handlers

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"resticfleet/models"
)

// healthz says that the process answers.
func (h *Handlers) healthz(c echo.Context) error { return c.String(http.StatusOK, "ok\n") }

// readyz says that the database answers too.
func (h *Handlers) readyz(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 2*time.Second)
	defer cancel()
	if err := models.Ping(ctx, h.DB); err != nil {
		c.Response().Header().Set("Retry-After", "5")
		return c.String(http.StatusServiceUnavailable, "the database does not answer\n")
	}
	return c.String(http.StatusOK, "ready\n")
}

// metrics is for Prometheus. The registry is made per scrape: all its figures
// live elsewhere.
func (h *Handlers) metrics(c echo.Context) error {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
	}
	gauge("resticfleet_agent_links", "Agents linked to this server.", func() float64 { return float64(h.Agents.Links()) })
	gauge("resticfleet_database_connections", "Open connections to the database.", func() float64 { return float64(h.DB.Stats().OpenConnections) })
	refused := &h.Agents.Counts
	for _, n := range []struct {
		name, help string
		count      *atomic.Int64
	}{
		{"messages_malformed", "Messages of agents that can't be read.", &refused.Malformed},
		{"messages_oversized", "Messages of agents that are too large.", &refused.Oversized},
		{"messages_unknown", "Messages of types this server doesn't know.", &refused.Unknown},
		{"messages_rejected", "Messages that could never be stored.", &refused.Rejected},
		{"messages_superseded", "Messages and polls of links that a newer one has replaced.", &refused.Superseded},
		{"links_refused", "Links and requests without a valid credential or hello.", &refused.RefusedLinks},
	} {
		counter("resticfleet_agent_"+n.name+"_total", n.help, func() float64 { return float64(n.count.Load()) })
	}
	// Compressing is the router's business.
	promhttp.HandlerFor(r, promhttp.HandlerOpts{DisableCompression: true}).ServeHTTP(c.Response(), c.Request())
	return nil
}
