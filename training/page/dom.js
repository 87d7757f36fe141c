// Creates elements without HTML, so that names may contain any characters.

const SVG = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "title"]);

/**
 * Creates an element.
 *
 * Attributes whose names begin with "on" are listeners. `true` is an empty
 * attribute, `false` and `null` are none. Children are elements or text.
 */
export function element(tag, attributes = {}, ...children) {
  const made = SVG.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat());
  return made;
}

/** Returns the element with an id. */
export const find = (id) => document.getElementById(id);

/** Formats a share in percent, as papers print errors. */
export const percent = (share) => `${(100 * share).toFixed(2)} %`;

/** Draws an image of bytes, gray or in colors, on a canvas of its size. */
export function paint(canvas, bytes, [height, width, channels]) {
  const pixels = new ImageData(width, height);
  for (let k = 0; k < height * width; k++) {
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * k + c] = bytes[channels * k + (channels === 3 ? c : 0)];
    }
    pixels.data[4 * k + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
