// SPDX-License-Identifier: Apache-2.0
// One set of controls for all videos of a group. Without this script each video has the browser's own controls.
"use strict";

(function () {
  const FPS = 25; // of every video that was scored
  // A video that deviates from the leader is sought if by more than LATE_S, and hurries, or waits, if by more than STEP_S.
  const LATE_S = 0.06, STEP_S = 0.008, HURRY = 0.05;

  const frameOf = (seconds) => Math.floor(seconds * FPS + 0.01);

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  class Group {
    constructor(box) {
      this.box = box;
      this.figures = Array.from(box.querySelectorAll("figure"));
      this.videos = this.figures.map((figure) => figure.querySelector("video"));
      this.broken = new Set();
      this.playing = false;
      this.silent = false;
      this.views = new window.report.Views(box, this.figures, frameOf);
      this.build();
      this.videos.forEach((video, i) => this.adopt(video, this.figures[i]));
      this.showAudio();
      this.tick();
    }

    build() {
      this.play = element("button", { type: "button", className: "play", textContent: "Play" });
      const back = element("button", { type: "button", textContent: "− frame" });
      const on = element("button", { type: "button", textContent: "+ frame" });
      this.seek = element("input", { type: "range", min: 0, max: 1, step: 1 / FPS, value: 0 });
      this.time = element("output", { textContent: "0.00 s" });
      this.speed = element("select");
      for (const rate of [0.1, 0.25, 0.5, 1, 1.5, 2]) this.speed.add(new Option(`${rate}×`, rate, false, rate === 1));
      this.audio = element("select");
      this.figures.forEach((figure, i) => this.audio.add(new Option(figure.dataset.label, i)));
      this.audio.add(new Option("none", "none"));
      this.loop = element("input", { type: "checkbox", checked: true });
      const keys = element("small", {
        className: "keys",
        textContent: "Keys: space plays and pauses, ← and → step a frame (with Shift a second), m mutes.",
      });
      const master = this.box.querySelector(".master");
      master.append(
        this.play, back, on,
        element("label", { className: "seek" }, element("span", { className: "hidden", textContent: "Position" }), this.seek),
        this.time,
        element("label", {}, "Speed", this.speed), element("label", {}, "Audio of", this.audio),
        element("label", {}, this.loop, "Loop"), ...this.views.controls, keys,
      );
      master.hidden = false;
      this.play.addEventListener("click", () => this.toggle());
      back.addEventListener("click", () => this.step(-1));
      on.addEventListener("click", () => this.step(1));
      this.seek.addEventListener("input", () => this.go(Number(this.seek.value)));
      this.speed.addEventListener("change", () => this.videos.forEach((v) => (v.playbackRate = Number(this.speed.value))));
      this.audio.addEventListener("change", () => {
        this.silent = false;
        this.showAudio();
      });
      this.box.addEventListener("pointerdown", () => (active = this));
      this.box.addEventListener("focusin", () => (active = this));
    }

    adopt(video, figure) {
      video.controls = false;
      const ready = () => this.measure();
      if (video.readyState > 0) ready();
      video.addEventListener("loadedmetadata", ready);
      const failed = () => {
        if (this.broken.has(video)) return;
        this.broken.add(video);
        figure.append(element("p", { className: "failed", textContent: "This browser cannot play the video." }));
      };
      if (video.error) failed();
      video.addEventListener("error", failed);
      video.addEventListener("click", () => this.toggle());
    }

    get playable() { return this.videos.filter((v) => !this.broken.has(v)); }
    // The longest leads: it is the last to end.
    get leader() { return this.playable.reduce((a, b) => ((b.duration || 0) > (a.duration || 0) ? b : a), this.playable[0]); }

    measure() {
      const length = Math.max(...this.videos.map((v) => v.duration || 0));
      if (Number.isFinite(length) && length > 0) this.seek.max = length;
    }

    toggle() { return this.playing ? this.pause() : this.start(); }

    async start() {
      if (!this.playable.length) return;
      if (this.leader.ended || this.leader.currentTime >= this.leader.duration - 0.5 / FPS) this.go(0);
      else this.go(this.leader.currentTime); // all from the same frame
      this.playing = true;
      this.play.textContent = "Pause";
      try {
        await Promise.all(this.playable.filter((v) => !v.ended).map((v) => v.play()));
      } catch (error) {
        if (error.name !== "AbortError") this.pause(); // a pause during the start is no failure
      }
    }

    pause() {
      this.playing = false;
      this.play.textContent = "Play";
      this.playable.forEach((v) => v.pause());
      if (this.leader) this.go(this.leader.currentTime);
    }

    go(time) {
      for (const video of this.playable) {
        const last = Math.max(0, (video.duration || 0) - 0.5 / FPS);
        video.currentTime = Math.min(Math.max(0, time), last);
      }
      this.show(time);
    }

    step(frames) {
      if (!this.playable.length) return;
      if (this.playing) this.pause();
      const frame = frameOf(this.leader.currentTime) + frames;
      this.go((Math.max(0, frame) + 0.5) / FPS); // the middle of a frame: no rounding shows its neighbour
    }

    show(time) {
      this.seek.value = time;
      this.time.textContent = `${time.toFixed(2)} s, frame ${frameOf(time)}`;
      this.seek.setAttribute("aria-valuetext", this.time.textContent);
    }

    showAudio() {
      this.videos.forEach((v, i) => (v.muted = this.silent || String(i) !== this.audio.value));
      this.figures.forEach((f, i) => f.classList.toggle("audible", !this.videos[i].muted));
    }

    mute() {
      this.silent = !this.silent;
      this.showAudio();
    }

    keepInStep(video, late) {
      const hurry = Math.abs(late) < STEP_S ? 0 : HURRY * Math.sign(late);
      const rate = Number(this.speed.value) * (1 + hurry);
      if (Math.abs(late) > LATE_S) video.currentTime += late;
      else if (video.playbackRate !== rate) video.playbackRate = rate;
    }

    tick() {
      if (this.playing && this.playable.length) {
        const leader = this.leader;
        if (leader.ended) {
          if (this.loop.checked) {
            this.go(0);
            this.playable.forEach((v) => v.play().catch(() => {}));
          } else {
            this.pause();
          }
        } else {
          for (const video of this.playable) {
            if (video !== leader && !video.ended && !video.seeking) this.keepInStep(video, leader.currentTime - video.currentTime);
          }
          this.show(leader.currentTime);
        }
      }
      requestAnimationFrame(() => this.tick());
    }
  }

  let active = null;
  const groups = Array.from(document.querySelectorAll(".players"), (box) => new Group(box));
  active = groups[0] || null;

  document.addEventListener("keydown", (event) => {
    if (!active || event.ctrlKey || event.altKey || event.metaKey) return;
    const at = event.target instanceof Element ? event.target : document.body;
    if (at.closest("select, textarea, input:not([type=range]):not([type=checkbox])")) return;
    // Space presses a button or a box that has the focus; arrows move a range or scroll a table.
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key === " " && !at.closest("button, a, summary, input[type=checkbox]")) active.toggle();
    else if (event.key in steps && !at.closest("input, .scroll")) active.step(steps[event.key] * (event.shiftKey ? FPS : 1));
    else if (event.key === "m") active.mute();
    else return;
    event.preventDefault();
  });
})();
