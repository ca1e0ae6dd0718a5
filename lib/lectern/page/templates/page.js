// Keeps an open page up to date: every few seconds it fetches the parts that have changed, and puts them into place.
"use strict";
(() => {
  const EVERY_MS = 5000, SLOWEST_MS = 60000, TIMEOUT_MS = 10000;
  const clock = document.querySelector("time.now");
  let at = Date.parse(clock.textContent.replace(" ", "T") + "Z"), since = performance.now();
  let tags = "", pause_ms = EVERY_MS, timer = 0, is_asking = false;

  function show(ms) {
    clock.textContent = new Date(ms).toISOString().slice(0, 19).replace("T", " ");
  }

  function tick() {
    if (!clock.classList.contains("stale")) show(at + performance.now() - since);
  }

  function place(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    for (const part of fresh.querySelectorAll("[id]")) {
      const old = document.getElementById(part.id);
      if (!old || old.parentElement.closest("[id]")) continue;
      if (part.id === "title") {
        document.title = part.textContent;
        document.querySelector("link[rel=icon]").href = part.dataset.icon;
        continue;
      }
      const open = [...old.querySelectorAll("details")].map((one) => one.open);
      part.querySelectorAll("details").forEach((one, place) => { if (place < open.length) one.open = open[place]; });
      old.replaceWith(document.adoptNode(part));
    }
  }

  async function look() {
    const headers = { "X-Fragments": "1" };
    if (tags) headers["If-None-Match"] = tags;
    const answer = await fetch(location.href, { headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (answer.status === 401) location.reload();
    if (answer.status !== 200 && answer.status !== 304) throw new Error(answer.status);
    if (answer.status === 200) place(await answer.text());
    tags = answer.headers.get("ETag");
    at = Date.parse(answer.headers.get("X-Now").replace(" ", "T") + "Z");
    since = performance.now();
  }

  async function again() {
    clearTimeout(timer);
    if (document.hidden || is_asking) return;
    is_asking = true;
    try {
      await look();
      clock.classList.remove("stale");
      pause_ms = EVERY_MS;
    } catch {
      clock.classList.add("stale");
      show(at);
      pause_ms = Math.min(2 * pause_ms, SLOWEST_MS);
    } finally {
      is_asking = false;
    }
    timer = setTimeout(again, pause_ms);
  }

  setInterval(tick, 1000);
  if (document.body.hasAttribute("data-live")) {
    document.addEventListener("visibilitychange", again);
    timer = setTimeout(again, EVERY_MS);
  }
})();
