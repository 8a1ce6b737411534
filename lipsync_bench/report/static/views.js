// SPDX-License-Identifier: Apache-2.0
// What the players of a group show: whole frames or a part of them; videos, or their difference to the reference.
"use strict";

(function () {
  const FACTOR = 8; // of the difference
  const PARTS = { frame: "whole frame", face: "face", mouth: "mouth" };

  // A part's box [left, top, width, height] inside the frame.
  function inside([x1, y1, x2, y2], frameWidth, frameHeight) {
    const width = Math.min(x2 - x1, frameWidth), height = Math.min(y2 - y1, frameHeight);
    const left = Math.min(Math.max(x1, 0), frameWidth - width), top = Math.min(Math.max(y1, 0), frameHeight - height);
    return [left, top, width, height];
  }

  class Views {
    // `frameOf(seconds)`: number of the frame of that time.
    constructor(box, figures, frameOf) {
      this.frameOf = frameOf;
      this.boxes = JSON.parse(box.dataset.parts);
      this.videos = figures.map((figure) => figure.querySelector("video"));
      this.reference = this.videos[figures.findIndex((figure) => "reference" in figure.dataset)];
      this.canvases = new Map();
      this.shown = new Map(); // time of the frame that each video shows
      this.part = window.report.chooser(Object.entries(PARTS).filter(([name]) => name === "frame" || name in this.boxes), "frame");
      this.picture = window.report.chooser([["video", "videos"], ["difference", `difference to the reference, × ${FACTOR}`]], "video");
      this.part.addEventListener("change", () => all.forEach((views) => views.enlarge(this.part.value)));
      this.picture.addEventListener("change", () => all.forEach((views) => views.differ(this.picture.value)));
      for (const video of this.videos) {
        video.addEventListener("loadedmetadata", () => this.enlarge(this.part.value));
        this.follow(video);
      }
      all.push(this);
      this.enlarge(this.part.value); // a browser keeps the choice when a page is shown again
      this.differ(this.picture.value);
    }

    get controls() {
      const { labelled } = window.report;
      const found = this.part.options.length > 1 ? [labelled("Show", this.part)] : [];
      if (this.reference && this.videos.length > 1) found.push(labelled("Picture", this.picture));
      return found;
    }

    enlarge(part) {
      this.part.value = part;
      for (const video of this.videos) {
        const { videoWidth: width, videoHeight: height, parentElement: view } = video;
        if (!width) continue; // not loaded, or broken
        const [left, top, w, h] = part === "frame" ? [0, 0, width, height] : inside(this.boxes[part], width, height);
        view.style.aspectRatio = `${w} / ${h}`;
        for (const shown of view.children) {
          const percent = (value, whole) => `${(100 * value) / whole}%`;
          Object.assign(shown.style, { width: percent(width, w), height: percent(height, h), left: percent(-left, w), top: percent(-top, h) });
        }
        view.classList.add("placed");
      }
    }

    differ(picture) {
      this.picture.value = picture;
      for (const video of this.videos) {
        if (!this.reference || video === this.reference) continue;
        if (!this.canvases.has(video)) {
          const canvas = Object.assign(document.createElement("canvas"), { className: "difference" });
          canvas.style.filter = `brightness(${FACTOR})`; // pixels of a file: page cannot be read, but filtered
          canvas.setAttribute("role", "img");
          canvas.setAttribute("aria-label", `difference of ${video.getAttribute("aria-label")} to the reference`);
          this.canvases.set(video, canvas);
          video.after(canvas);
        }
        this.canvases.get(video).hidden = picture === "video";
      }
      this.enlarge(this.part.value); // the new canvases too
      this.draw();
    }

    // Calls `draw` whenever a video shows another frame, and keeps that frame's time.
    follow(video) {
      if (!video.requestVideoFrameCallback) {
        video.addEventListener("seeked", () => this.draw()); // an old browser: only while it does not play
        return;
      }
      const next = (_, { mediaTime }) => {
        this.shown.set(video, mediaTime);
        this.draw();
        video.requestVideoFrameCallback(next);
      };
      video.requestVideoFrameCallback(next);
    }

    draw() {
      if (!this.reference || this.picture.value === "video") return;
      const number = (video) => this.frameOf(this.shown.get(video) ?? video.currentTime);
      for (const [video, canvas] of this.canvases) {
        if (!video.videoWidth || !this.reference.videoWidth || number(video) !== number(this.reference)) continue;
        if (canvas.width !== video.videoWidth) Object.assign(canvas, { width: video.videoWidth, height: video.videoHeight });
        const context = canvas.getContext("2d");
        context.globalCompositeOperation = "copy";
        context.drawImage(video, 0, 0, canvas.width, canvas.height);
        context.globalCompositeOperation = "difference";
        context.drawImage(this.reference, 0, 0, canvas.width, canvas.height);
        canvas.dataset.frame = number(video);
      }
    }
  }

  const all = [];
  window.report.Views = Views;
})();
