// The visitor's last photos with their words and results, in this browser only (IndexedDB).

const MOST_PHOTOS = 12, MOST_CORRECTED = 200;

const inPhotos = browserStore("ovseg", "photos");

const photosNewestFirst = async () =>
  (await inPhotos("readonly", (photos) => photos.getAll())).sort((one, other) => other.time - one.time);
const findPhoto = (id) => inPhotos("readonly", (photos) => photos.get(id));
const removePhotos = () => inPhotos("readwrite", (photos) => photos.clear());

// Changes some fields of a photo that is there, in one step; whether it was there.
async function changePhoto(id, changes) {
  let there = false;
  await inPhotos("readwrite", (photos) => {
    const asked = photos.get(id || "");
    asked.onsuccess = () => {
      there = Boolean(asked.result);
      if (there) photos.put({ ...asked.result, ...changes });
    };
  });
  return there;
}

async function keepPhoto(entry) {
  await inPhotos("readwrite", (photos) => photos.put(entry));
  // Corrections are work: photos with some make room only for others with some.
  const kept = await photosNewestFirst(), of = (kind) => kept.filter(kind);
  const [worked, others] = [of((one) => one.edits), of((one) => !one.edits && !one.batch)];
  // Those of the last batch wait for their review.
  const batches = of((one) => !one.edits && one.batch), last = batches[0]?.batch;
  const old = [...worked.slice(MOST_CORRECTED), ...others.slice(MOST_PHOTOS), ...batches.filter((one) => one.batch !== last)];
  await inPhotos("readwrite", (photos) => { for (const { id } of old) photos.delete(id); });
}

// The same bytes are the same photo, whatever the file is called.
async function photoId(blob) {
  let a = 0x811c9dc5, b = 0x1234567;
  for (const byte of new Uint8Array(await blob.arrayBuffer())) {
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b ^ byte, 0x85ebca6b) + 1;
  }
  return `${blob.size}-${(a >>> 0).toString(16)}-${(b >>> 0).toString(16)}`;
}
