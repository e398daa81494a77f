/* What a page may need later is loaded when it does: explorers, quizzes, the search index. */
(() => {
  const here = document.currentScript.src.replace(/book\.js.*$/, "");

  const load = (file) =>
    new Promise((done, failed) => {
      const script = Object.assign(document.createElement("script"), { src: here + file, onload: done, onerror: failed });
      document.head.append(script);
    });

  /** Load the explorers, and the library that draws them, when the reader comes near the first one. */
  function explorers() {
    const places = [...document.querySelectorAll(".explorer")].map((explorer) => explorer.parentElement);
    const watch = new IntersectionObserver(
      async (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        watch.disconnect();
        for (const file of ["vendor/d3.min.js", "vendor/plot.umd.min.js", "explorers.js"]) await load(file);
      },
      { rootMargin: "800px" },
    );
    places.forEach((place) => watch.observe(place));
  }

  /** A box that scrolls sideways must be reachable by keyboard, whenever it or its letters become wider. */
  function reachable() {
    const wide = "table, div.math, mjx-container[display], .pst-scrollable-table-container";
    const boxes = [...document.querySelector(".bd-content").querySelectorAll(wide)];
    const mark = () => {
      for (const box of boxes) {
        if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
        else box.removeAttribute("tabindex");
      }
    };
    const sizes = new ResizeObserver(mark);
    boxes.forEach((box) => sizes.observe(box));
    document.fonts.addEventListener("loadingdone", mark);
  }

  function start() {
    if (document.querySelector(".admonition.quiz")) load("quiz.js");
    explorers();
    const search = document.querySelector("#pst-search-dialog input");
    search?.addEventListener("focus", () => Search.hasIndex() || load("../searchindex.js"), { once: true });
    Promise.resolve(window.MathJax?.startup?.promise).then(reachable);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
