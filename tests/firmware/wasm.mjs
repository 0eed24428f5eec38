// Runs the WebAssembly image: node wasm.mjs IMAGE "seed=1 class=7".
import { readFile } from "node:fs/promises";

const [image, line = ""] = process.argv.slice(2);
let memory;
const host = {
  print: (at, length) => process.stdout.write(Buffer.from(memory.buffer, at, length).toString("latin1")),
};
const { instance } = await WebAssembly.instantiate(await readFile(image), { host });
memory = instance.exports.memory;
const bytes = Buffer.from(line, "latin1");
bytes.copy(Buffer.from(memory.buffer, instance.exports.line(), 128));
process.exitCode = instance.exports.run(bytes.length) === 1 ? 0 : 1;
