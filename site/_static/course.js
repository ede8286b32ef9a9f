// Answers are on paper, open; on the screen they are again as they were.
const opened = [];
addEventListener("beforeprint", () => {
  for (const block of document.querySelectorAll("details:not([open])")) {
    block.open = true;
    opened.push(block);
  }
});
addEventListener("afterprint", () => {
  while (opened.length) opened.pop().open = false;
});

// What scrolls within the page can be reached and scrolled from the keyboard.
function reachable() {
  const parts = ["table", "mjx-container[display]", "pre", ".output", ".cell_output"];
  const wide = parts.map((part) => `article ${part}`).join();
  for (const node of document.querySelectorAll(wide)) {
    const scrolls = node.scrollWidth > node.clientWidth || node.scrollHeight > node.clientHeight;
    if (scrolls && !node.hasAttribute("tabindex")) node.tabIndex = 0;
  }
}
addEventListener("load", reachable);
addEventListener("resize", reachable);

// A flipbook's slider says its name only beside itself.
function named() {
  for (const box of document.querySelectorAll(".widget-hslider, .widget-inline-hbox")) {
    const label = box.querySelector(".widget-label")?.textContent;
    const handle = box.querySelector("[role=slider]");
    if (label && handle) handle.ariaLabel = label;
  }
}
new MutationObserver(named).observe(document.body, { childList: true, subtree: true });
