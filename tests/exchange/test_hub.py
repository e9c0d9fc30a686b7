"""Files of a hub on this machine: those asked for, to the last bit, from the cache where it is not reached."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from diffusion.errors import InputError
from diffusion.exchange.hub import Address, Repository, download, look_up
from tests.fake_hub import FakeHub

ADDRESS = Address("owner/name")
FILES = {"config.json": b'{"a": 1}', "unet/big.safetensors": bytes(range(256)) * 99, "run.py": b"raise SystemExit"}


@pytest.fixture
def filled(hub: FakeHub, tmp_path: Path) -> FakeHub:
    """The hub with one repository."""
    for name, content in FILES.items():
        path = tmp_path / "served" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    hub.folders["owner/name"] = tmp_path / "served"
    hub.tags |= {"v1", "refs/pr/3"}
    return hub


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://owner/name", Address("owner/name")),
        ("hf:/owner/name", Address("owner/name")),
        ("hf://own-er/na.me_2@v1.0", Address("own-er/na.me_2", "v1.0")),
        ("hf://owner/name@refs/pr/12", Address("owner/name", "refs/pr/12")),
        ("hf://owner/name@refs/pr/12/unet", Address("owner/name", "refs/pr/12", "unet")),
        ("hf://owner/name/a/b.pt", Address("owner/name", "", "a/b.pt")),
        ("hf://owner/name/", Address("owner/name")),
    ],
)
def test_addresses_as_people_write_them(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected
    assert Address.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["hf://", "hf://name", "hf:///a/b", "hf://a/b/../c", "hf://a b/c", "hf://../../etc"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be hf://OWNER/NAME"):
        Address.parse(text)


def test_only_the_files_asked_for_come_and_to_the_last_bit(filled: FakeHub) -> None:
    repository = look_up(ADDRESS)
    assert repository.commit == filled.commit("owner/name") and repository.files.keys() == FILES.keys()
    chosen = ["config.json", "unet/big.safetensors"]
    folder = download(repository, chosen)
    assert {name: (folder / name).read_bytes() for name in chosen} == {name: FILES[name] for name in chosen}
    assert filled.served() == {*chosen} and not (folder / "run.py").exists()
    # A second time nothing is sent again.
    filled.requests.clear()
    assert download(look_up(ADDRESS), chosen) == folder and not filled.served()


@pytest.mark.parametrize("revision", ["v1", "refs/pr/3"])
def test_a_revision_is_asked_for_by_its_name(filled: FakeHub, revision: str) -> None:
    repository = look_up(Address("owner/name", revision))
    assert repository.commit == filled.commit("owner/name")
    assert (download(repository, ["config.json"]) / "config.json").read_bytes() == FILES["config.json"]


def test_names_with_characters_of_patterns_mean_themselves(filled: FakeHub, tmp_path: Path) -> None:
    for name in ("a[1].json", "a1.json"):
        (tmp_path / "served" / name).write_text(name)
    folder = download(look_up(ADDRESS), ["a[1].json"])
    assert (folder / "a[1].json").read_text() == "a[1].json" and not (folder / "a1.json").exists()


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"run.py"}))
def test_bytes_that_are_not_what_the_hub_says_are_refused(filled: FakeHub, name: str) -> None:
    filled.spoiled.add(name)
    with pytest.raises(InputError, match=rf"hf://owner/name: {name}: is not what the hub has, by its hash; delete "):
        download(look_up(ADDRESS), [name])


def test_files_in_the_cache_that_were_damaged_are_refused(filled: FakeHub) -> None:
    folder = download(look_up(ADDRESS), ["config.json"])
    path = (folder / "config.json").resolve()
    path.write_bytes(FILES["config.json"] + b" ")
    with pytest.raises(InputError, match=r"config\.json: has 9 bytes and not 8; delete "):
        download(look_up(ADDRESS), ["config.json"])
    path.write_bytes(FILES["config.json"][::-1])
    with pytest.raises(InputError, match="is not what the hub has, by its hash"):
        download(look_up(ADDRESS), ["config.json"])


@pytest.mark.parametrize("revision", ["", "v1"])
@pytest.mark.parametrize("cause", ["offline", "status", "gone"])
def test_the_cache_serves_where_the_hub_does_not(
    cause: str,
    revision: str,
    filled: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = Address("owner/name", revision)
    folder = download(look_up(address), ["config.json"])
    unreached(cause, filled, monkeypatch)
    capsys.readouterr()
    repository = look_up(address)
    assert repository.cached == download(repository, ["config.json"]) == folder
    assert (repository.commit, [*repository.files]) == (filled.commit("owner/name"), ["config.json"])
    assert f"{address}: taken from the cache at commit {folder.name[:12]}, as the hub " in capsys.readouterr().out
    with pytest.raises(InputError, match=r"hf://owner/other: is not in the cache, and the hub .*; connect, or name"):
        look_up(Address("owner/other"))


def unreached(cause: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a hub that cannot be asked: by choice, as it is down, or as there is no network."""
    if cause == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif cause == "status":
        hub.status = 503
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # Nothing listens there.


def refusal(hub: FakeHub, address: Address) -> str:
    with pytest.raises(InputError) as caught:
        look_up(address)
    # The token was sent, and must not come back, here or in the errors that led to this one.
    assert any("hf_secretsecretsecret" in token for token in hub.tokens)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert "hf_secret" not in str(caught.value)
    return str(caught.value)


def test_every_refusal_says_what_to_do(filled: FakeHub, tmp_path: Path) -> None:
    filled.folders |= dict.fromkeys(("owner/gated", "owner/private"), tmp_path / "served")
    filled.gated.add("owner/gated")
    filled.private.add("owner/private")
    text = "no such repository, or a private one: check its name, or log in by: hf auth login"
    assert refusal(filled, Address("owner/missing")) == f"hf://owner/missing: {text}"
    assert refusal(filled, Address("owner/private")) == f"hf://owner/private: {text}"
    assert refusal(filled, Address("owner/gated")) == (
        "hf://owner/gated: is gated: accept its terms on its page on the hub, then log in by: hf auth login"
    )
    assert refusal(filled, Address("owner/name", "v7")) == (
        "hf://owner/name@v7: has no revision 'v7'; leave out @ for the newest"
    )
    for status, said in ((403, "the hub refuses this token; log in again by: hf auth login"), (418, "status 418; try")):
        filled.status = status
        assert said in refusal(filled, ADDRESS)


def test_a_name_that_no_repository_can_have_is_named(filled: FakeHub) -> None:
    with pytest.raises(InputError, match=r"hf://a--b/c\.\.d: a--b/c\.\.d is no name of a repository"):
        look_up(Address("a--b/c..d"))


def test_a_disk_that_takes_nothing_is_named(filled: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "inside"))
    with pytest.raises(InputError, match=r"cannot be kept in the cache of the hub \(Not a directory\)"):
        download(look_up(ADDRESS), ["config.json"])


def test_a_file_that_is_lost_while_it_is_listed_is_named(filled: FakeHub, tmp_path: Path) -> None:
    repository = look_up(ADDRESS)
    download(repository, ["config.json"])
    gone = Repository(ADDRESS, repository.commit, {**repository.files, "b.json": repository.files["config.json"]})
    with pytest.raises(InputError, match=r"b\.json: is missing after the download; try again"):
        download(gone, ["b.json"])
