"""Keys from variables and from files as lumio-conf, allas-conf, rclone and s3cmd write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiftrain.checkpoint.stores.credentials import Credentials, find_credentials
from aiftrain.errors import UserError
from aiftrain.run.storage import ServiceSpec

LUMI = ServiceSpec(name="lumi-o", title="LUMI-O", endpoint="https://lumidata.eu")
ALLAS = ServiceSpec(name="allas", title="Allas", endpoint="https://a3s.fi")

# As lumio-conf writes them: LUMI-O-tools, internal/toolConfig.
RCLONE = """
[lumi-462000001-private]
acl = private
type = s3
provider = Ceph
max_upload_parts = 1000
env_auth = false
project_id = 462000001
access_key_id = RCLONE1
secret_access_key = hush-rclone-1
endpoint = https://lumidata.eu

[lumi-462000001-public]
acl = public-read
type = s3
access_key_id = RCLONE1
secret_access_key = hush-rclone-1
endpoint = https://lumidata.eu

[elsewhere]
type = s3
access_key_id = OTHER
secret_access_key = hush-other
endpoint = s3.example.eu

[mail]
type = drive
token = {"access_token":"hush"}
"""
# As allas-conf writes them: CSCfi/allas-cli-utils, allas_conf.
S3CFG = """
[allas-project_2001234]
access_key   = S3CMD1
secret_key   = hush-s3cmd-1
host_base    = a3s.fi
host_bucket  = %(bucket)s.a3s.fi
human_readable_sizes = True
enable_multipart = True
signature_v2 = True
use_https = True
"""


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def rclone(home: Path, text: str = RCLONE, mode: int = 0o600) -> Path:
    return write(home / ".config" / "rclone" / "rclone.conf", text, mode)


def refused(service: ServiceSpec, environ: dict[str, str], home: Path) -> str:
    with pytest.raises(UserError) as error:
        find_credentials(service, environ, home)
    assert "hush" not in str(error.value)
    return str(error.value)


def test_the_remote_that_lumio_conf_wrote(tmp_path: Path) -> None:
    file = rclone(tmp_path)
    keys = find_credentials(LUMI, {}, tmp_path)
    assert (keys.access_key, keys.secret_key) == ("RCLONE1", "hush-rclone-1")
    assert keys.source == f"lumi-462000001-private in {file}", "not the public one, whose objects anybody may read"


def test_the_file_that_allas_conf_wrote_by_link_and_by_name(tmp_path: Path) -> None:
    file = write(tmp_path / ".s3cfg_project_2001234", S3CFG)
    (tmp_path / ".s3cfg").symlink_to(file)
    assert find_credentials(ALLAS, {}, tmp_path).access_key == "S3CMD1"
    assert "no keys for lumi-o (lumidata.eu) were found" in refused(LUMI, {}, tmp_path)


def test_variables_come_first_and_those_for_the_service_before_all(tmp_path: Path) -> None:
    rclone(tmp_path)
    aws = {"AWS_ACCESS_KEY_ID": "AWS", "AWS_SECRET_ACCESS_KEY": "hush-aws", "AWS_SESSION_TOKEN": "hush-token"}
    own = {"AIFTRAIN_S3_LUMI_O_ACCESS_KEY_ID": "OWN", "AIFTRAIN_S3_LUMI_O_SECRET_ACCESS_KEY": "hush-own"}
    assert find_credentials(LUMI, aws | own, tmp_path).access_key == "OWN"
    found = find_credentials(LUMI, aws, tmp_path)
    assert (found.access_key, found.session_token, found.source) == ("AWS", "hush-token", "AWS_ACCESS_KEY_ID")
    elsewhere = aws | {"AWS_ENDPOINT_URL": "https://a3s.fi"}
    assert find_credentials(LUMI, elsewhere, tmp_path).access_key == "RCLONE1", "those in AWS_* are of another host"
    assert find_credentials(ALLAS, elsewhere, tmp_path).access_key == "AWS"


@pytest.mark.parametrize("prefix", ["AWS_", "AIFTRAIN_S3_LUMI_O_"])
def test_half_a_pair_is_a_mistake(prefix: str, tmp_path: Path) -> None:
    alone = refused(LUMI, {f"{prefix}ACCESS_KEY_ID": "A"}, tmp_path)
    assert alone == f"{prefix}SECRET_ACCESS_KEY is not set, but the other key is"
    assert f"{prefix}ACCESS_KEY_ID is not set" in refused(LUMI, {f"{prefix}SECRET_ACCESS_KEY": "hush"}, tmp_path)


def test_of_several_projects_one_is_to_be_named(tmp_path: Path) -> None:
    second = RCLONE.replace("462000001", "462000002").replace("RCLONE1", "RCLONE2")
    rclone(tmp_path, RCLONE + second)
    told = refused(LUMI, {}, tmp_path)
    assert "AIFTRAIN_S3_LUMI_O_REMOTE=NAME chooses one of lumi-462000001-private, lumi-462000002-private" in told
    chosen = {"AIFTRAIN_S3_LUMI_O_REMOTE": "lumi-462000002-private"}
    assert find_credentials(LUMI, chosen, tmp_path).access_key == "RCLONE2"
    assert "no keys called lumi-3" in refused(LUMI, {"AIFTRAIN_S3_LUMI_O_REMOTE": "lumi-3"}, tmp_path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604])
def test_keys_that_others_may_read_are_not_used(mode: int, tmp_path: Path) -> None:
    file = rclone(tmp_path, mode=mode)
    assert refused(LUMI, {}, tmp_path) == f"others may read the keys in {file}: chmod 600 {file}"
    assert "no keys" in refused(ALLAS, {}, tmp_path), "a file without keys for the service may be as it likes"


def test_files_elsewhere_and_files_that_are_none(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.conf", RCLONE)
    assert find_credentials(LUMI, {"RCLONE_CONFIG": str(file)}, tmp_path).access_key == "RCLONE1"
    s3cmd = write(tmp_path / "mine.s3cfg", S3CFG)
    assert find_credentials(ALLAS, {"S3CMD_CONFIG": str(s3cmd)}, tmp_path).access_key == "S3CMD1"
    moved = tmp_path / "config"
    write(moved / "rclone" / "rclone.conf", RCLONE)
    assert find_credentials(LUMI, {"XDG_CONFIG_HOME": str(moved)}, tmp_path).access_key == "RCLONE1"
    write(file, "hush hush\n")
    assert f"{file} cannot be read as sections" in refused(LUMI, {"RCLONE_CONFIG": str(file)}, tmp_path)
    write(file, "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nhush\n")
    assert "no keys" in refused(LUMI, {"RCLONE_CONFIG": str(file)}, tmp_path)
    assert "cannot read" in refused(LUMI, {"RCLONE_CONFIG": str(tmp_path)}, tmp_path)


def test_keys_are_in_no_repr() -> None:
    keys = Credentials("a file", "ACCESS", "hush-secret", "hush-token")
    assert repr(keys) == str(keys) == "Credentials(source='a file')"
