"""Data sets in folders: INFN's layout, exam folders, folders of exams, manifests and DICOM archives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mammodensity.data.archive import choose, data_of, files_under, is_archive, survey
from mammodensity.data.dataset import MANIFEST_NAME, DataSet, ImageRecord, read_manifest, split_word
from mammodensity.data.picture_files import PICTURE_SUFFIXES, exam_in_name, patient_in_exam, projection_in_name
from mammodensity.errors import LayoutError
from mammodensity.terms import DENSITY, PROJECTIONS, TISSUE, Category, Projection, Scale

_KNOWN_LAYOUTS = (
    "DICOM files, a manifest.csv, folders CC_R CC_L MLO_R MLO_L, or exam folders with the projection in the file names"
)


def find_images(path: Path | str, *, synthetic: bool = False) -> DataSet:
    """Find the images of a data set, reading no pixels.

    ``path`` is a manifest, a folder with a ``manifest.csv``, INFN's layout (``CC_R/A/*.png`` or
    ``CC_R/train/A/*.png``), DICOM files in folders of any depth, one exam folder, a folder of exam folders, or a single
    image. ``synthetic`` accepts 2-D images computed from tomosynthesis.

    Raises
    ------
    LayoutError
        Nothing is there, it is a model folder, or its arrangement or a folder name is unknown.
    """
    root = Path(path)
    if not root.exists():
        raise LayoutError(f"{root} not found; expected a data set: {_KNOWN_LAYOUTS}")
    if not root.is_file() and not root.is_dir():
        raise LayoutError(f"{root} is neither a file nor a folder; expected a data set: {_KNOWN_LAYOUTS}")
    if root.is_file():
        if root.suffix.lower() == ".csv":
            return read_manifest(root)
        return _archive(root, synthetic=synthetic) if is_archive(root) else _single_image(root)
    _refuse_model(root)
    if os.path.lexists(root / MANIFEST_NAME):  # a pipe or a link to nothing is refused, not passed over
        return read_manifest(root / MANIFEST_NAME)
    folders = _folders(root)
    if any(folder.name in PROJECTIONS for folder in folders):
        data = _infn_layout(root, folders)
    elif is_archive(root):
        return _archive(root, synthetic=synthetic)
    else:
        data = _exam_folders(root, folders)
    _require_nothing_deeper(data)
    if not data.records:
        raise LayoutError(f"{root} holds no PNG, PGM, TIFF, JPEG or DICOM image; expected {_KNOWN_LAYOUTS}")
    return data


def _refuse_model(root: Path) -> None:
    """Refuse the folder of a model: its manifest lists the exams of training, too."""
    trained = (path.parent.name for path in root.glob("*/*.safetensors"))
    fitted = ((root / name).is_file() for name in ("category_map.json", "calibration.json"))
    if not (any(name in (*PROJECTIONS, "joint") for name in trained) or any(fitted)):
        return
    manifest = root / MANIFEST_NAME
    if manifest.is_file():
        advice = f"to score the exams that no network has seen, give `{manifest} --split test`"
    else:
        advice = f"give a folder of images, and the model as `--model {root}`"
    raise LayoutError(f"{root} is a model folder, not a data set; {advice}")


def find_all_images(paths: Sequence[Path | str], *, synthetic: bool = False) -> DataSet:
    """Find the images under several paths as one data set; each is what `find_images` takes.

    DICOM files of one study are one exam, whichever of the paths they lie under. So are picture files that are named
    one by one, where they lie in one folder and their names differ only by the projection.

    Raises
    ------
    LayoutError
        As `find_images`, or two paths hold exams of the same name.
    """
    roots = list(dict.fromkeys(map(Path, paths)))
    if len(roots) == 1:
        return find_images(roots[0], synthetic=synthetic)
    archives = [root for root in roots if root.exists() and not is_picture_layout(root) and is_archive(root)]
    others = [root for root in roots if root not in archives]
    pictures = [root for root in others if root.is_file() and root.suffix.lower() in PICTURE_SUFFIXES]
    parts = [find_images(root, synthetic=synthetic) for root in others if root not in pictures]
    for folder in dict.fromkeys(picture.parent for picture in pictures):
        siblings = [picture for picture in pictures if picture.parent == folder]
        records = _exam_records(siblings, folder.resolve().name, f"{folder.resolve().name}_")
        parts.append(DataSet(folder, "picture files", tuple(records)))
    if archives:
        parts.append(_archive(*archives, synthetic=synthetic))
    holder: dict[str, DataSet] = {}
    for part in parts:
        for exam_id in part.exams():
            if holder.setdefault(exam_id, part) is not part:
                raise LayoutError(
                    f"exam {exam_id} is in {holder[exam_id].root} and in {part.root}, and nothing says whether they "
                    "are one; rename a folder, or name the exams in a manifest"
                )
    return DataSet(
        _common_folder(roots),
        " and ".join(dict.fromkeys(part.layout for part in parts)),
        tuple(record for part in parts for record in part.records),
        tuple(path for part in parts for path in part.ignored),
        tuple(refusal for part in parts for refusal in part.refused),
    )


def _archive(*roots: Path, synthetic: bool) -> DataSet:
    root = _common_folder(roots) if len(roots) > 1 else roots[0]
    data = data_of(root, choose(survey(roots, synthetic=synthetic)))
    if not data.records:
        first = data.refused[0].reasons[0].text if data.refused else "only files that are no images"
        raise LayoutError(f"{root} holds no DICOM file that can be used; {first}; `mammodensity check` names them all")
    return data


def _common_folder(roots: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([root.absolute() for root in roots]))


def is_picture_layout(root: Path) -> bool:
    """True for a manifest, a folder with one, or INFN's folders: data sets that are found by structure."""
    if not root.is_dir():
        return root.suffix.lower() == ".csv"
    return (root / MANIFEST_NAME).is_file() or any(folder.name in PROJECTIONS for folder in _folders(root))


def _require_nothing_deeper(data: DataSet) -> None:
    """Refuse a data set with pictures deeper than its layout has them: nothing is left out silently."""
    paths = {record.path for record in data.records}
    for path in files_under(data.root, _refuse_closed):
        if path.suffix.lower() in PICTURE_SUFFIXES and path not in paths:
            if not path.is_file():
                raise LayoutError(f"{path} is no ordinary file, or a link to nothing; expected an image")
            raise LayoutError(f"{path} lies too deep to tell its exam; expected {_KNOWN_LAYOUTS}")


def _refuse_closed(error: OSError) -> NoReturn:
    raise LayoutError(f"{error.filename} cannot be listed ({error.strerror}); ask for permission to read it") from error


def _single_image(path: Path) -> DataSet:
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise LayoutError(f"{path} is no image or manifest; expected DICOM, PNG, PGM, TIFF, JPEG or a .csv manifest")
    return DataSet(path.parent, "single image", tuple(_exam_records([path], path.stem, "")))


def _infn_layout(root: Path, folders: list[Path]) -> DataSet:
    records: list[ImageRecord] = []
    scale = _scale_of_folders(root)
    pictures, ignored = _files(root)
    if pictures:
        raise LayoutError(f"{pictures[0]} lies next to the projection folders; move it into CC_R/A or the like")
    for folder in folders:
        if folder.name not in PROJECTIONS:
            raise LayoutError(f"{folder}: unknown projection folder; expected only {', '.join(PROJECTIONS)}")
        projection = Projection(folder.name)
        for place, split, category in _class_folders(folder, scale):
            pictures, others = _files(place)
            ignored += others
            records += [_infn_record(file, projection, category, split) for file in pictures]
    return DataSet(root, "INFN folders", tuple(records), tuple(ignored))


def _scale_of_folders(root: Path) -> Scale:
    """F, G and D where a class folder is named F or G, and A to D otherwise; a folder D alone does not decide."""
    named = {folder.name for depth in ("*/*", "*/*/*") for folder in root.glob(depth) if folder.is_dir()}
    return TISSUE if named & {"F", "G"} else DENSITY


def _class_folders(projection: Path, scale: Scale) -> list[tuple[Path, str | None, Category | None]]:
    """The folders of a projection that hold images, each with the split and category that it is named after."""
    categories = {category.value: category for category in scale}
    places: list[tuple[Path, str | None, Category | None]] = [(projection, None, None)]
    for folder in _folders(projection):
        if folder.name in categories:
            places.append((folder, None, categories[folder.name]))
        elif (split := split_word(folder.name)) is not None:
            places.append((folder, split, None))
            for inner in _folders(folder):
                if inner.name not in categories:
                    raise LayoutError(f"{inner}: unknown class folder; expected {scale}")
                places.append((inner, split, categories[inner.name]))
        else:
            raise LayoutError(f"{folder}: unknown class folder; expected {scale}, or train, validation, test")
    return places


def _infn_record(file: Path, projection: Projection, category: Category | None, split: str | None) -> ImageRecord:
    named = projection_in_name(file.stem)
    if named is not None and named != projection:
        raise LayoutError(f"{file} is named {named} but lies in the folder of {projection}; move or rename it")
    exam_id = exam_in_name(file.stem, category or "") or file.stem
    return ImageRecord(exam_id, patient_in_exam(exam_id), projection, file, category, split)


def _exam_folders(root: Path, folders: list[Path]) -> DataSet:
    pictures, ignored = _files(root)
    records = _exam_records(pictures, root.resolve().name, "")
    for folder in folders:
        inner, others = _files(folder)
        ignored += others
        records += _exam_records(inner, folder.name, f"{folder.name}_")
    layout = "folder of images" if pictures else "folder of exams"
    return DataSet(root, layout, tuple(records), tuple(ignored))


def _exam_records(pictures: list[Path], folder_exam: str, prefix: str) -> list[ImageRecord]:
    """Records of the images in a folder: a single exam named after the folder, or several by their file names.

    Images whose names differ by more than the projection are never put into the same exam, nor are images of two
    folders: two women in one exam would be worse than one woman in two.
    """
    exams = {picture: exam_in_name(picture.stem) for picture in pictures}
    several = len(set(exams.values())) > 1
    records = []
    for picture in pictures:
        projection = projection_in_name(picture.stem)
        if projection is None:
            raise LayoutError(f"{picture}: its name does not tell the projection; put CC_R, L-MLO or the like into it")
        exam_id = f"{prefix}{exams[picture] or folder_exam}" if several else folder_exam
        records.append(ImageRecord(exam_id, exam_id, projection, picture))
    return records


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Images and other files directly in a folder, each sorted; hidden files are left out."""
    files = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    return pictures, [file for file in files if file.suffix.lower() not in PICTURE_SUFFIXES]
