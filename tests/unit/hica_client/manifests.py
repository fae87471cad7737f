"""A site's manifest, as a hospital changes it."""

import csv
import random
import shutil
import uuid

from hica_client.site import load_site


def rows_of(site):
    with site.data.manifest.open() as file:
        return list(csv.DictReader(file))


def write_rows(site, rows):
    with site.data.manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "label", "patient_id", "split", "mask"])
        writer.writeheader()
        writer.writerows(rows)


def give(site, image, patient):
    write_rows(
        site,
        [row | {"patient_id": patient} if row["image"] == image else row for row in rows_of(site)],
    )


class Folder:
    """A site's manifest and images, and what a hospital may do to them in the middle of a study."""

    def __init__(self, site_file):
        self.site_file, self.root = site_file, site_file.parent
        self.manifest = self.root / "manifest.csv"
        for row in (rows := self.rows()):  # two images of each patient
            row["patient_id"] = f"p{int(row['patient_id'][1:]) // 2}"
        self.write(rows)

    @property
    def site(self):
        return load_site(self.site_file)

    def rows(self):
        with self.manifest.open() as file:
            return list(csv.DictReader(file))

    def write(self, rows):
        with self.manifest.open("w", newline="") as file:
            writer = csv.DictWriter(
                file, ["image", "label", "patient_id", "split", "mask", "dup_group"]
            )
            writer.writeheader()
            writer.writerows(rows)

    def change(self, edit, draws):
        rows = self.rows()
        row, other = draws.sample(rows, 2)
        if edit == "remove":
            rows.remove(row)
        elif edit == "remove a patient":
            rows = [each for each in rows if each["patient_id"] != row["patient_id"]]
        elif edit == "reorder":
            draws.shuffle(rows)
        elif edit == "rename":
            name = f"{uuid.uuid4().hex}.png"
            (self.root / row["image"]).rename(self.root / name)
            row["image"] = name
        elif edit == "rename to a name that was there":
            (self.root / row["image"]).rename(self.root / "x.png")
            (self.root / other["image"]).rename(self.root / row["image"])
            (self.root / "x.png").rename(self.root / other["image"])
        elif edit == "relabel":
            row["label"] = {"round": "square", "square": "round"}[row["label"]]
        elif edit == "another patient's":
            row["patient_id"] = other["patient_id"]
        elif edit == "link":
            row["dup_group"] = other["dup_group"] = "g"
        elif edit == "add":
            name = f"{uuid.uuid4().hex}.png"
            (self.root / name).write_bytes(self.different(row))
            rows.append({**row, "image": name, "mask": ""})
        elif edit == "copy":
            name = f"{uuid.uuid4().hex}.png"
            shutil.copy(self.root / row["image"], self.root / name)
            rows.append({**row, "image": name, "patient_id": uuid.uuid4().hex})
        elif edit == "overwrite":
            (self.root / row["image"]).write_bytes(self.different(row))
        elif edit == "split":
            for each in rows:
                each["split"] = draws.choice(("train", "test"))
        elif edit == "fraction":
            text = self.site_file.read_text()
            kept = [line for line in text.splitlines() if not line.startswith("test_fraction")]
            kept.insert(kept.index("[data]") + 1, f"test_fraction = {draws.uniform(0.1, 0.9)}")
            self.site_file.write_text("\n".join(kept) + "\n")
        self.write(rows)

    def different(self, row):
        return (self.root / row["image"]).read_bytes() + random.randbytes(4)
