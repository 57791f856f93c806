// Puts htmx, its event-stream extension and our own script into one file: an
// extension that arrives after htmx has read the page would never connect.
import { readFile, writeFile, mkdir } from "node:fs/promises";
import { transform } from "esbuild";

const vendored = ["htmx.org/dist/htmx.min.js", "htmx.org/dist/ext/hx-sse.min.js"];

const parts = await Promise.all(vendored.map(async (name) => {
	const text = await readFile(`node_modules/${name}`, "utf8");
	return text.replace(/^\/\/# sourceMappingURL=.*$/m, "").trim();
}));
const ours = await transform(await readFile("src/app.js", "utf8"), { minify: true, target: "es2022", format: "iife" });

await mkdir("dist", { recursive: true });
await writeFile("dist/app.js", [...parts, ours.code.trim(), ""].join("\n"));
