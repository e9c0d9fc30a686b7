// Writes masks as PNG files of one bit per pixel without a canvas, and reads them. White is known, black is to be filled.

/** @typedef {import("./mask.js").Mask} Mask */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
/** How many pixels are packed before others have their turn. */
const AT_ONCE = 2 ** 21;
/** How long a browser may take until it has begun to write a file. */
const KEPT_MS = 60_000;
const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

/** Returns the checksum of the bytes of a chunk. @param {Uint8Array} bytes */
function checksum(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = CRC[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

/** Returns a chunk of a PNG. @param {string} name @param {Uint8Array} data @returns {Uint8Array<ArrayBuffer>} */
function chunk(name, data) {
  const bytes = new Uint8Array(data.length + 12), view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  view.setUint32(data.length + 8, checksum(bytes.subarray(4, data.length + 8)));
  return bytes;
}

/** Returns a mask, as it is now, as a PNG of one bit per pixel. Large ones are packed bit by bit, so that drawing goes on.
 * @param {Mask} mask @returns {Promise<Blob>} */
export async function encode({ width, height, hidden }) {
  const stride = Math.ceil(width / 8) + 1, rows = new Uint8Array(stride * height), now = hidden.slice();
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) if (!now[i]) rows[y * stride + 1 + (x >> 3)] |= 128 >> (x & 7);
    if (i % AT_ONCE < width && i > AT_ONCE) await new Promise((resume) => setTimeout(resume));
  }
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header[8] = 1; // One bit per pixel, in color type 0: gray.
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const chunks = [chunk("IHDR", header), chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return new Blob([Uint8Array.from(SIGNATURE), ...chunks], { type: "image/png" });
}

/** Hands a mask to a person as a file. @param {Mask} mask @param {string} name */
export async function download(mask, name) {
  const address = URL.createObjectURL(await encode(mask));
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), KEPT_MS);
}

/** Reads a mask that the server wrote, of the size of an image. @param {Blob} blob @param {number} width @param {number} height @returns {Promise<Uint8Array>}
 * @throws {Error} for a mask of another size */
export async function decode(blob, width, height) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  if (bitmap.width !== width || bitmap.height !== height)
    throw new Error(`The mask has ${bitmap.width} x ${bitmap.height} pixels, and the image ${width} x ${height}.`);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("This browser has no canvas to read a mask with.");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height), hidden = new Uint8Array(width * height);
  for (let i = 0; i < hidden.length; i++) hidden[i] = data[4 * i] < 128 ? 1 : 0;
  return hidden;
}
