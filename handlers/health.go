package handlers

import (
	"context"
	"net/http"
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
	counter("resticfleet_agent_messages_unknown_total", "Messages of types this server doesn't know.",
		func() float64 { return float64(h.Agents.UnknownMessages.Load()) })
	counter("resticfleet_agent_messages_rejected_total", "Messages that could never be stored.",
		func() float64 { return float64(h.Agents.RejectedMessages.Load()) })
	promhttp.HandlerFor(r, promhttp.HandlerOpts{DisableCompression: true}).ServeHTTP(c.Response(), c.Request())
	return nil
}
