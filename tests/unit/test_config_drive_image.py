"""The image that guests mount holds the files under their own names."""

from io import BytesIO

import pycdlib
from hypothesis import given, settings
from hypothesis import strategies as st

from torpor.adapters.config_drive import config_drive_image
from torpor.domain.config_drive import config_drive_files
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec, NetworkConfig
from torpor.domain.workload import Flavor


def spec(user_data: str | None) -> InstanceSpec:
    network = NetworkConfig("10.91.0.7", 24, "10.91.0.1", ("10.91.0.1",), "torpor.internal")
    id = InstanceId("d7b0b1de-35a2-4b4a-9b3e-1f6b0d6f1a10")
    return InstanceSpec(id, "one", "tiny", Flavor(1, 128), "52:54:00:0a:66:02", network, user_data)


def read(image: bytes, path: str, names: str) -> bytes:
    iso, content = pycdlib.PyCdlib(), BytesIO()
    iso.open_fp(BytesIO(image))
    try:
        iso.get_file_from_iso_fp(content, **{f"{names}_path": path})
    finally:
        iso.close()
    return content.getvalue()


@settings(max_examples=10, deadline=None)
@given(st.none() | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5000))
def test_every_file_is_read_back_by_both_kinds_of_names(user_data: str | None) -> None:
    image = config_drive_image(spec(user_data))
    for path, data in config_drive_files(spec(user_data)).items():
        assert read(image, f"/{path}", "rr") == data
        assert read(image, f"/{path}", "joliet") == data


def test_volume_carries_the_label_that_cloud_init_looks_for() -> None:
    image = config_drive_image(spec(None))
    primary = image[16 * 2048 : 17 * 2048]
    assert primary[1:6] == b"CD001"
    assert primary[40:72].rstrip() == b"config-2"
