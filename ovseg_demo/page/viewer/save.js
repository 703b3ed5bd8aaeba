// What is taken away: the server's file, or the page with the result that is shown, which only the browser has.

const RESULT_PLACE = ">RESULT<";

function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

globalThis.ovseg.save = async (file, kind) => {
  if (kind !== "html") return void document.querySelector("#ready")?.click();
  const page = await (await fetch(file.url)).text();
  // A name may hold anything; in the page it must not end the script that holds it.
  const text = JSON.stringify({ ...(await correctedPayload(result)), of: null, key: null }).replaceAll("<", "\\u003c");
  const stem = result.photo_name.replace(/\.[^.]*$/, "");
  download(new Blob([page.replace(RESULT_PLACE, () => `>${text}<`)], { type: "text/html" }), `${stem}.html`);
};
