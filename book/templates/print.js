async () => {
  // Before the book is printed: every picture and formula is there, and nothing is wider than the paper.
  for (const image of document.images) image.loading = "eager";
  await window.MathJax?.startup?.promise;
  await Promise.all([...document.images].map((image) => image.decode()));
  await document.fonts.ready;
  for (const wide of document.querySelectorAll("article :is(table, pre, div.math)")) {
    const over = wide.scrollWidth / wide.parentElement.clientWidth;
    if (over > 1) wide.style.zoom = 1 / over; // or the browser makes the whole book small
  }
}
