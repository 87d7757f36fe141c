// The visitor's image, which is dropped, chosen or drawn.

import { element, find, paint, percent } from "./dom.js";

const STROKE = 30; // of a drawing of 256 pixels: digits fill eight rows

export class Visitor {
  /**
   * @param network the contents of `network.json`.
   * @param onimage is called with an image for the network.
   */
  constructor(network, onimage) {
    this.network = network;
    this.onimage = onimage;
    find("file").addEventListener("change", ({ target }) => this.open(target.files[0]));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.open(event.dataTransfer.files[0]);
    });
    find("drawing").hidden = !network.drawing;
    if (network.drawing) this.prepareDrawing();
  }

  async open(file) {
    if (!file) return;
    try {
      const picture = await createImageBitmap(file);
      const { width, height } = picture;
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext("2d");
      context.drawImage(picture, 0, 0);
      picture.close();
      const side = Math.min(width, height);
      const area = { left: (width - side) / 2, top: (height - side) / 2, width: side, height: side };
      const [rows, columns] = this.network.input;
      const exact = width === columns && height === rows;
      this.take(context.getImageData(0, 0, width, height), exact ? { left: 0, top: 0, width, height } : area);
    } catch (error) {
      find("message").textContent = `${file.name} is not an image that this browser can read.`;
    }
  }

  /** Takes an area of pixels, in the size and the channels of the network. */
  take(pixels, area) {
    const { input } = this.network;
    const image = resized(pixels, area, input);
    find("own").hidden = false;
    paint(find("own-image"), image, input);
    this.image = Float32Array.from(image);
    this.onimage(this.image);
  }

  show(probabilities) {
    const { classes } = this.network;
    const ranked = probabilities.map((share, k) => ({ share, name: classes[k] }));
    ranked.sort((a, b) => b.share - a.share);
    const items = ranked.slice(0, 5).map(({ share, name }) => {
      const bar = element("span", { class: "bar" });
      bar.style.setProperty("--share", share);
      return element("li", {}, element("span", {}, name), bar, element("span", {}, percent(share)));
    });
    find("own-classes").replaceChildren(...items);
  }

  prepareDrawing() {
    const pad = find("pad");
    const context = pad.getContext("2d", { willReadFrequently: true });
    const clear = () => {
      context.fillStyle = "black";
      context.fillRect(0, 0, pad.width, pad.height);
    };
    const at = ({ offsetX, offsetY }) => [
      (offsetX * pad.width) / pad.clientWidth,
      (offsetY * pad.height) / pad.clientHeight,
    ];
    clear();
    Object.assign(context, { strokeStyle: "white", lineWidth: STROKE, lineCap: "round", lineJoin: "round" });
    pad.addEventListener("pointerdown", (event) => {
      pad.setPointerCapture(event.pointerId);
      context.beginPath();
      context.moveTo(...at(event));
      context.lineTo(...at(event));
      context.stroke();
    });
    pad.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      context.lineTo(...at(event));
      context.stroke();
    });
    pad.addEventListener("pointerup", () => {
      const pixels = context.getImageData(0, 0, pad.width, pad.height);
      this.take(pixels, around(pixels));
    });
    find("clear").addEventListener("click", clear);
  }
}

/** Returns the square around a drawing. The digits of the data set fill theirs too. */
function around({ data, width, height }) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!data[4 * (y * width + x)]) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
    }
  }
  const side = Math.max(right - left, bottom - top);
  return { left: (left + right - side) / 2, top: (top + bottom - side) / 2, width: side, height: side };
}

/**
 * Resizes an area of pixels. Each new pixel is the mean of the area that it
 * covers, which is black beyond the edges.
 */
function resized({ data, width, height }, area, [rows, columns, channels]) {
  const image = new Uint8Array(rows * columns * channels);
  const [tall, wide] = [area.height / rows, area.width / columns];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const sums = [0, 0, 0];
      const [top, left] = [area.top + row * tall, area.left + column * wide];
      for (let y = Math.floor(top); y < top + tall; y++) {
        for (let x = Math.floor(left); x < left + wide; x++) {
          if (x < 0 || y < 0 || x >= width || y >= height) continue;
          const covered = overlap(y, top, tall) * overlap(x, left, wide);
          for (let c = 0; c < 3; c++) sums[c] += covered * data[4 * (y * width + x) + c];
        }
      }
      const colors = sums.map((sum) => sum / (tall * wide));
      const gray = 0.299 * colors[0] + 0.587 * colors[1] + 0.114 * colors[2];
      const pixel = channels === 3 ? colors : [gray];
      pixel.forEach((value, c) => (image[channels * (row * columns + column) + c] = Math.round(value)));
    }
  }
  return image;
}

/** Returns how much of a pixel is within a span. */
const overlap = (place, start, length) => Math.min(place + 1, start + length) - Math.max(place, start);
