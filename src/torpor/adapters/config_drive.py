"""The config drive as a disk image: ISO9660, with names that Linux reads unchanged."""

from io import BytesIO
from pathlib import PurePosixPath

import pycdlib

from torpor.domain.config_drive import VOLUME_LABEL, config_drive_files
from torpor.domain.instance import InstanceSpec


def config_drive_image(spec: InstanceSpec) -> bytes:
    """An ISO9660 image with Rock Ridge and Joliet names, labelled `config-2`."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident=VOLUME_LABEL, rock_ridge="1.09", joliet=3)
    try:
        short: dict[PurePosixPath, str] = {PurePosixPath("."): ""}
        for number, (name, data) in enumerate(sorted(config_drive_files(spec).items())):
            path = PurePosixPath(name)
            _add_folder(iso, path.parent, short)
            iso.add_fp(
                BytesIO(data),
                len(data),
                f"{short[path.parent]}/F{number}.;1",
                rr_name=path.name,
                joliet_path=f"/{path}",
                file_mode=0o100444,
            )
        image = BytesIO()
        iso.write_fp(image)
    finally:
        iso.close()
    return image.getvalue()


def _add_folder(iso: pycdlib.PyCdlib, folder: PurePosixPath, short: dict[PurePosixPath, str]) -> None:
    """Add `folder` and what it lies in. `short` maps folders to their plain ISO9660 paths, 8 characters a part."""
    if folder in short:
        return
    _add_folder(iso, folder.parent, short)
    short[folder] = f"{short[folder.parent]}/D{len(short)}"
    iso.add_directory(short[folder], rr_name=folder.name, joliet_path=f"/{folder}", file_mode=0o040555)
