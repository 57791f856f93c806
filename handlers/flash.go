package handlers

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"resticfleet/views/ui"
)

// saidCookie carries what a form has to say over the redirect that follows it.
const saidCookie = "said"

// say has the next page tell what came of this form.
func (h *Handlers) say(c echo.Context, title, text string) {
	h.setCookie(c, &http.Cookie{Name: saidCookie, Value: url.QueryEscape(title + "\n" + text), MaxAge: 60})
}

// said is what the form before has to say, once; nil for nothing.
func (h *Handlers) said(c echo.Context) *ui.Banner {
	cookie, err := h.cookie(c, saidCookie)
	if err != nil {
		return nil
	}
	h.setCookie(c, &http.Cookie{Name: saidCookie, MaxAge: -1})
	all, err := url.QueryUnescape(cookie.Value)
	if err != nil {
		return nil
	}
	title, text, _ := strings.Cut(all, "\n")
	return &ui.Banner{State: ui.Good, Title: title, Text: text}
}
