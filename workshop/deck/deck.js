// Equations first, for their size counts; then each slide's type is made as large as fits.
(() => {
  const WIDTH = 1280, HEIGHT = 720, MARGIN = 64;
  const LARGEST = 44, SMALLEST = 24; // type in pixels of a screen 720 high; 24 is 1/30

  // Words in tables are broken into lines only where type would be smaller than this.
  const BROKEN = 28;

  function leaves() {
    return [...document.querySelectorAll(".slides section")].filter((s) => !s.querySelector("section"));
  }

  // Whether all of a slide is on the screen, margins left free, when its type is of this size.
  function fits(slide, size) {
    slide.style.fontSize = `${size}px`;
    const scale = Reveal.getScale(), room = WIDTH - 2 * MARGIN;
    const parts = [...slide.querySelectorAll("pre, table, mjx-container[display] > svg")];
    const width = (part) => part.matches("pre")
      ? part.scrollWidth : part.getBoundingClientRect().width / scale;
    return slide.scrollHeight <= HEIGHT && parts.every((part) => width(part) <= room + 1);
  }

  // Hidden slides have no size, so that each is laid out for as long as it takes.
  function fit(slide) {
    const shown = [slide, slide.parentElement.closest("section")].filter(Boolean);
    const before = shown.map((part) => part.style.display);
    shown.forEach((part) => { part.style.display = "block"; });
    let size = LARGEST;
    while (size > BROKEN && !fits(slide, size)) size -= 1;
    if (!fits(slide, size)) {
      slide.classList.add("broken");
      size = LARGEST;
      while (size > SMALLEST && !fits(slide, size)) size -= 1;
      // Rather too small than cut off.
      while (size > 8 && !fits(slide, size)) size -= 1;
    }
    slide.dataset.size = size;
    slide.dataset.fits = fits(slide, size);
    shown.forEach((part, i) => { part.style.display = before[i]; });
  }

  async function start() {
    await MathJax.startup.promise;
    await MathJax.typesetPromise();
    await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
    await Reveal.initialize({
      width: WIDTH, height: HEIGHT, margin: 0, center: false, hash: true, transition: "none",
      slideNumber: "c/t", controls: false, plugins: [RevealNotes],
    });
    leaves().forEach(fit);
    Reveal.layout();
    document.body.dataset.ready = "yes";
  }

  start();
})();
