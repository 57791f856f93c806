// What the pages do beyond htmx: keep the event stream alive and say when it
// isn't, dialogs, theme, copy, following a log, ages that stay true. Pages work
// without any of it.

const $ = (id) => document.getElementById(id);

// --- The event stream -----------------------------------------------------

// hx-sse reconnects once it was connected, but not when its first try fails,
// and it would retry a refused session for ever. Both are handled here.
const live = $("live");
const liveState = $("live-state");
const PING_SILENCE = 45_000; // the server pings every 15 s
let lastEventID = "";
let pingTimer = 0;
let attempt = 0;

function say(state) {
	if (!liveState || liveState.dataset.state === state) return;
	if (state === "lost") {
		const since = liveState.querySelector("[data-since]");
		since.textContent = new Date().toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
	}
	liveState.dataset.state = state;
	liveState.hidden = false;
}

function startAgain() {
	say("lost");
	clearTimeout(pingTimer);
	const wait = Math.min(30_000, 500 * 2 ** attempt++) * (0.7 + 0.6 * Math.random());
	setTimeout(startWhenSeen, wait);
}

// A browser has six connections to a server and every tab holds one for its
// stream: only a page that is seen does, the others start when they are.
function startWhenSeen() {
	if (!document.hidden) {
		htmx.trigger(live, "sse:start");
		return;
	}
	addEventListener("visibilitychange", startWhenSeen, { once: true });
}

// refused reloads the page, which then shows the login or what is missing, also
// that the host is gone; at most once a minute, so that a stream refused for
// another reason can't loop.
function refused(status) {
	if (![401, 403, 404].includes(status)) return false;
	const last = Number(sessionStorage.getItem("stream-refused") ?? 0);
	if (Date.now() - last < 60_000) return false;
	sessionStorage.setItem("stream-refused", String(Date.now()));
	location.reload();
	return true;
}

if (live) {
	live.addEventListener("htmx:config:request", (event) => {
		if (lastEventID) event.detail.ctx.request.headers["Last-Event-ID"] = lastEventID;
	});
	live.addEventListener("htmx:sse:after:connection", () => {
		attempt = 0;
		say("live");
		// Hidden while it connected: hx-sse pauses when it is told.
		setTimeout(() => document.hidden && document.dispatchEvent(new Event("visibilitychange")));
	});
	live.addEventListener("htmx:sse:before:message", (event) => {
		const { message, connection } = event.detail;
		say("live");
		if (message.id) lastEventID = message.id;
		if (message.event !== "ping" && !pingTimer) return;
		// A connection can die without a word; the pings' silence tells.
		clearTimeout(pingTimer);
		pingTimer = setTimeout(() => {
			if (document.hidden) return;
			say("lost");
			connection.reader?.cancel();
		}, PING_SILENCE);
	});
	live.addEventListener("htmx:sse:error", (event) => {
		if (!refused(event.detail.status)) say("lost");
	});
	// The first answer: an error, or something that is no stream.
	live.addEventListener("htmx:finally:request", (event) => {
		const response = event.detail.ctx.response;
		if (response?.headers.get("Content-Type")?.includes("text/event-stream")) return;
		if (!refused(response?.status)) startAgain();
	});
	live.addEventListener("htmx:sse:close", (event) => {
		if (event.detail.reason === "ended" || event.detail.reason === "cancelled") startAgain();
	});
	addEventListener("visibilitychange", () => {
		clearTimeout(pingTimer);
		pingTimer = 0;
	});
	// After htmx has read the page; a page that is about to go needs no stream.
	addEventListener("DOMContentLoaded", () => setTimeout(startWhenSeen));
}

// --- Clicks ---------------------------------------------------------------

// The second click of a double click, or a key held down, would press what the
// first one has just put in its place: Cancel where Run now was.
addEventListener("click", (event) => {
	if (event.detail > 1 && event.target.closest?.("form button")) {
		event.preventDefault();
		event.stopImmediatePropagation();
	}
}, true);
addEventListener("keydown", (event) => {
	if (event.repeat && event.key === "Enter" && event.target.closest?.("button")) event.preventDefault();
}, true);

// The button says that the server has been asked before the server says
// anything; the answer, or what the page fetches because of it, replaces that.
addEventListener("submit", (event) => {
	const button = event.submitter;
	if (!button?.dataset.busy || button.ariaBusy) return;
	const [text] = button.childNodes;
	const was = text.textContent;
	button.style.minWidth = `${button.offsetWidth}px`;
	button.ariaBusy = "true";
	const asking = `${button.dataset.busy} `;
	text.textContent = asking;
	event.target.addEventListener("htmx:finally:request", () => {
		button.style.minWidth = "";
		button.ariaBusy = null;
		if (text.textContent === asking) text.textContent = was;
	}, { once: true });
});

addEventListener("click", (event) => {
	const target = event.target;
	for (const menu of document.querySelectorAll("details[data-menu][open]")) {
		if (!menu.contains(target)) menu.open = false;
	}
	const copy = target.closest?.("[data-copy]");
	if (copy) copyText(copy);
	const fill = target.closest?.("[data-fill]");
	if (fill) {
		event.preventDefault(); // it would post the form, for want of a script
		const input = $(fill.dataset.fill);
		input.value = fill.value;
		input.dispatchEvent(new Event("input", { bubbles: true }));
		input.focus();
	}
	if (target.closest?.("[data-close]") || target === dialog) dialog.close();
});

// A repository's kind shows how its address is written; an address that says
// its own kind chooses it.
addEventListener("input", (event) => {
	const form = event.target.closest?.("[data-schemes]");
	if (!form) return;
	const { scheme, url } = form.elements;
	if (event.target === url) {
		const kind = url.value.startsWith("/") ? "local" : url.value.split(":", 1)[0];
		const known = [...scheme.options].some((option) => option.value === kind);
		if (known && (kind === "local" || url.value.includes(":"))) scheme.value = kind;
	} else if (event.target !== scheme) return;
	url.placeholder = scheme.selectedOptions[0].dataset.placeholder;
});

addEventListener("keydown", (event) => {
	if (event.key !== "Escape") return;
	const menu = document.querySelector("details[data-menu][open]");
	if (!menu) return;
	menu.open = false;
	menu.querySelector("summary").focus();
});

async function copyText(button) {
	const source = $(button.dataset.copy);
	try {
		await navigator.clipboard.writeText(source.textContent);
	} catch {
		// Plain http to another machine has no clipboard: select it instead.
		getSelection().selectAllChildren(source);
		if (!document.execCommand("copy")) return;
	}
	clearTimeout(copiedTimer);
	copied = button.dataset.copy;
	sayOfCopy("Copied");
	copiedTimer = setTimeout(() => {
		sayOfCopy("Copy");
		copied = "";
	}, 2000);
}

// The button says so for a while, also where the page is swapped meanwhile.
let copied = "";
let copiedTimer = 0;
function sayOfCopy(text) {
	for (const button of document.querySelectorAll("[data-copy]")) {
		if (button.dataset.copy === copied) button.textContent = text;
	}
}
addEventListener("htmx:after:swap", () => sayOfCopy("Copied"));

// --- The dialog -----------------------------------------------------------

// Links that fetch into the dialog open it when the answer is there. The
// browser gives the focus back to the link; Escape keeps.
const dialog = $("dialog");
dialog?.addEventListener("close", () => $("dialog-body").replaceChildren());

addEventListener("htmx:after:swap", (event) => {
	const ctx = event.detail.ctx;
	const target = ctx.target?.id;
	if (target === "dialog-body" && !dialog.open) dialog.showModal();
	// A form that came back with mistakes: go to the first. A live update that
	// repeats a mistaken filter is nobody's act.
	if (ctx.response?.status === 422 && (ctx.request.method !== "GET" || ctx.sourceElement.matches("form"))) {
		document.querySelector("[aria-invalid=true]")?.focus();
	}
});

// An act often takes its own button away. Who pressed it by the keyboard goes on
// from what it stood in, not from the top of the page.
let focusWas = [];
addEventListener("htmx:before:swap", () => {
	focusWas = [];
	for (let at = document.activeElement; at && at !== document.body; at = at.parentElement) {
		if (at.id) focusWas.push(at.id);
	}
});
addEventListener("htmx:after:swap", () => {
	if (document.activeElement !== document.body) return;
	const at = focusWas.map($).find(Boolean);
	if (!at) return;
	if (at.tabIndex < 0) at.tabIndex = -1;
	at.focus({ preventScroll: true });
});

// Who asked for the focus has had it. htmx asks everybody again after every
// swap, those too whom it left alone: somebody who types would be moved.
function focusGiven() {
	for (const element of document.querySelectorAll("[autofocus]")) element.removeAttribute("autofocus");
}
addEventListener("load", focusGiven);
addEventListener("htmx:after:swap", focusGiven);

// --- Lists that keep their places ------------------------------------------

// What is under the pointer, or has the focus, must not be moved by somebody
// else's doing: while either is in one of the page's lists, a live update
// changes the rows of it, and of the lists above it, where they are. Those that
// came or went wait, and the page says so, until the lists are left.
const hovers = matchMedia("(hover: hover)");

// heldLists are those that an update must leave in their places.
function heldLists(page) {
	const lists = [...page.querySelectorAll("[data-places]")];
	return lists.slice(0, 1 + lists.findLastIndex((list) =>
		(hovers.matches && list.matches(":hover")) || list.contains(document.activeElement)));
}

// keepPlaces gives next the rows of list, each as new as next has it, and
// reports whether that leaves anything out.
function keepPlaces(list, next) {
	const fresh = new Map([...next.children].map((row) => [row.id, row]));
	const rows = [...list.children].map((row) => fresh.get(row.id) ?? row.cloneNode(true));
	if (rows.length === next.children.length && rows.every((row, i) => row === next.children[i])) return false;
	next.replaceChildren(...rows);
	return true;
}

addEventListener("htmx:before:swap", (event) => {
	const { ctx, tasks } = event.detail;
	const page = ctx.sourceElement;
	if (!page.dataset.live) return;
	const next = tasks[0]?.fragment?.querySelector("[data-live]");
	for (const list of heldLists(page)) {
		const other = next?.querySelector(`#${list.id}`);
		if (other && keepPlaces(list, other)) next.dataset.held = "";
	}
});

function letGo() {
	const page = document.querySelector("[data-held]");
	if (!page || heldLists(page).length > 0) return;
	delete page.dataset.held;
	htmx.trigger(document.body, page.dataset.live);
}
addEventListener("pointerover", letGo, { passive: true });
document.documentElement.addEventListener("pointerleave", letGo, { passive: true });
addEventListener("focusout", () => setTimeout(letGo));

// A message in the toast region goes by itself, unless someone is in it.
const toast = $("toast");
let toastTimer = 0;
function clearToast() {
	clearTimeout(toastTimer);
	toastTimer = setTimeout(() => {
		if (toast.matches(":hover, :focus-within")) clearToast();
		else toast.replaceChildren();
	}, 10_000);
}
if (toast) new MutationObserver(() => toast.firstChild && clearToast()).observe(toast, { childList: true });

// No answer at all to what somebody asked: say so instead of nothing. That the
// page can't look again by itself is said where it says that it is live.
addEventListener("htmx:error", (event) => {
	const ctx = event.detail.ctx;
	if (!ctx || ctx.response) return;
	const looks = ctx.request.method === "GET";
	if (looks && !ctx.sourceElement.matches("a")) return;
	const text = document.createElement("p");
	text.className = "rounded-box border border-l-4 border-line border-l-error bg-panel px-4 py-3";
	text.textContent = looks
		? "The server did not answer. Try again in a moment."
		: "The server did not answer. Nothing may have happened: look again before you repeat it.";
	toast.replaceChildren(text);
});

// --- Theme ----------------------------------------------------------------

// The choice is a cookie, so that the server can render it and nothing flashes.
addEventListener("submit", (event) => {
	const form = event.target;
	if (!form.matches("[data-theme-form]")) return;
	event.preventDefault();
	const theme = event.submitter.value;
	const secure = location.protocol === "https:" ? "; Secure" : "";
	document.cookie = `theme=${theme}; Path=/; SameSite=Lax; Max-Age=${theme ? 31_536_000 : 0}${secure}`;
	const root = document.documentElement;
	if (theme) root.dataset.theme = theme;
	else delete root.dataset.theme;
	document.querySelector("meta[name=color-scheme]").content = theme || "light dark";
	for (const button of form.querySelectorAll("[name=theme]")) {
		button.setAttribute("aria-pressed", String(button === event.submitter));
	}
});

// --- The log --------------------------------------------------------------

// Follows new lines as long as its end is in sight.
for (const box of document.querySelectorAll("[data-follow]")) {
	let atEnd = true;
	box.scrollTop = box.scrollHeight;
	box.addEventListener("scroll", () => {
		atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
	}, { passive: true });
	new MutationObserver(() => {
		if (atEnd) box.scrollTop = box.scrollHeight;
	}).observe(box, { childList: true, subtree: true });
}

// --- Lists whose newest stands first ----------------------------------------

// A live update would push down what is under the pointer or has the focus:
// while someone is in the rows it asks for nothing above the newest of them, and
// for the rest when they leave. The address is read late, because a request may
// have waited for another one that changed the filter.
addEventListener("htmx:before:request", (event) => {
	const ctx = event.detail.ctx;
	const list = ctx.sourceElement;
	if (!list.matches("[data-newest]")) return;
	const url = new URL(list.getAttribute("hx-get"), location.href);
	if (list.dataset.newest && list.querySelector("tbody:is(:hover, :focus-within)")) url.searchParams.set("newest", list.dataset.newest);
	ctx.request.action = url.pathname + url.search;
});
function left(event) {
	const rows = event.target.closest?.("[data-newest] tbody");
	if (rows && !rows.contains(event.relatedTarget)) rows.closest("[data-newest]").querySelector("[data-newer]")?.click();
}
addEventListener("pointerout", left);
addEventListener("focusout", left);

// The address says what a filter shows: a reload, the way back and who is passed
// it find it again.
addEventListener("htmx:after:swap", (event) => {
	const ctx = event.detail.ctx;
	if (!ctx.sourceElement?.matches?.("[data-address]")) return;
	const url = new URL(ctx.request.action, location.href);
	for (const [name, value] of [...url.searchParams]) if (!value) url.searchParams.delete(name);
	history.replaceState(history.state, "", url);
});

// --- Status strips ----------------------------------------------------------

// A strip is one stop of the keyboard; the arrow keys walk its days and the tip
// says what the pointer would be told by the day's title.
const tip = $("tip");
let walked = -1; // the day that is shown of the strip that has the focus
function showDay(strip, index) {
	const days = [...strip.querySelectorAll("g")];
	walked = Math.max(0, Math.min(days.length - 1, index));
	const day = days[walked];
	if (!day) return;
	for (const other of days) other.toggleAttribute("data-current", other === day);
	tip.textContent = day.querySelector("title").textContent;
	const place = strip.getBoundingClientRect();
	tip.style.left = `${Math.min(place.left, innerWidth - tip.offsetWidth - 8)}px`;
	tip.style.top = `${place.bottom + 6}px`;
}
addEventListener("focusin", (event) => {
	if (event.target.matches("[data-strip]:focus-visible")) showDay(event.target, Infinity);
});
addEventListener("focusout", (event) => {
	if (!event.target.matches("[data-strip]")) return;
	event.target.querySelector("[data-current]")?.removeAttribute("data-current");
	walked = -1;
	tip.replaceChildren();
});
// An update draws the strip anew, with what the day is by now.
addEventListener("htmx:after:swap", () => {
	if (walked >= 0 && document.activeElement.matches("[data-strip]")) showDay(document.activeElement, walked);
});
addEventListener("scroll", () => tip?.replaceChildren(), { passive: true });
addEventListener("keydown", (event) => {
	const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
	if (!step || !event.target.matches?.("[data-strip]")) return;
	event.preventDefault();
	const from = walked < 0 ? event.target.querySelectorAll("g").length : walked;
	showDay(event.target, from + step);
});

// --- Ages -----------------------------------------------------------------

// The same words as ui.Age, so that a refresh changes nothing but the number.
function age(ms) {
	const minutes = Math.floor(ms / 60_000);
	const hours = Math.floor(minutes / 60);
	const days = Math.floor(hours / 24);
	if (minutes < 1) return "under 1 min";
	if (hours < 1) return `${minutes} min`;
	if (days < 1) return `${hours} h`;
	if (days < 7 && hours % 24) return `${days} d ${hours % 24} h`;
	return `${days.toLocaleString("en")} d`;
}

function relative(style, ms) {
	if (style === "in") return ms >= 0 ? "due now" : `in ${age(-ms)}`;
	if (style === "age") return age(ms);
	if (style === "count") {
		const seconds = Math.max(0, Math.floor(ms / 1000));
		return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
	}
	return ms < 60_000 ? "just now" : `${age(ms)} ago`;
}

function refreshAges(selector) {
	const now = Date.now();
	for (const time of document.querySelectorAll(selector)) {
		const text = relative(time.dataset.rel, now - Date.parse(time.dateTime));
		if (time.textContent !== text) time.textContent = text;
	}
}
setInterval(refreshAges, 30_000, "time[data-rel]");
setInterval(refreshAges, 1000, "time[data-rel=count]");

// What works by scripts alone is shown once they do: a click before would be lost.
addEventListener("DOMContentLoaded", () => setTimeout(() => { document.documentElement.dataset.scripted = ""; }));
