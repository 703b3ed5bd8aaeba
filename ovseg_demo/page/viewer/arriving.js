// Photos that come by drop and paste, anywhere on the page.

// It goes where one chosen in the photo field goes.
function takePhoto(files) {
  const photo = [...files].find((file) => file.type.startsWith("image/")) || files[0];
  const field = document.querySelector("#photo input[type=file]");
  if (!photo || !field) return false;
  const carried = new DataTransfer();
  carried.items.add(photo);
  field.files = carried.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
  return true;
}

const dropHere = find(".ov-drop");
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
// Fields that take files themselves: the photo's, the one for many, and the one for a label map.
const isTaken = (event) => event.target instanceof Element && event.target.closest("#photo, #batch, .ov-truth");

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!hasFiles(event)) return;
    dropHere.hidden = kind === "drop" || (kind === "dragleave" && !event.relatedTarget);
    if (isTaken(event)) return;
    event.preventDefault();
    if (kind === "drop" && event.dataTransfer.files.length) takePhoto(event.dataTransfer.files);
  });
}

document.addEventListener("paste", (event) => {
  const { files, types } = event.clipboardData || {};
  // A text that was copied along with its picture is meant as a text.
  if (!files?.length || types.includes("text/plain") || !files[0].type.startsWith("image/")) return;
  if (takePhoto(files)) event.preventDefault();
});
