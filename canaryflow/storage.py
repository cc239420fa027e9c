"""One vocabulary of places: a local path, ``file://``, or ``s3://bucket/key``.

A bundle is kept under ``<store>/<name>/<version>``. The version is a digest, so a copy never changes and a
second copy of the same bundle is nothing to do.

``python -m canaryflow.storage fetch URI DIR`` brings a bundle into a folder: what a pod does first.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from canaryflow.bundle.format import MANIFEST, Bundle
from canaryflow.errors import BundleError, CanaryflowError, InputError, NotFound, PlatformError
from canaryflow.names import check_name

_TIMEOUT_SECONDS = 30.0
_RETRIES = 3
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"(?!.*(\.\.|\.-|-\.)|[\d.]+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchObject"})


@dataclass(frozen=True)
class _Object:
    """An object (or a prefix) of S3."""

    bucket: str
    key: str

    def under(self, name: str) -> _Object:
        return _Object(self.bucket, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def put_bundle(bundle_dir: Path, store: str, name: str) -> str:
    """Copy a bundle into a store under its version. Whole or not at all, and idempotent.

    Args:
        bundle_dir: The bundle; verified first.
        store: A folder, ``file://`` or ``s3://bucket/prefix``.
        name: The model's name.

    Returns:
        The copy's URI: ``<store>/<name>/<version>``, a local one as an absolute path.

    Raises:
        BundleError: The bundle is not whole.
        InputError: The store is of an unknown kind, or the name cannot be one.
        PlatformError: S3 cannot be reached or refuses.
    """
    check_name(name)
    bundle = Bundle.open(bundle_dir)
    place = _parse(store)
    if isinstance(place, _Object):
        return _put_s3(bundle, place.under(name).under(bundle.version))
    target = place.absolute() / name / bundle.version
    if _whole(target, bundle.version):
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{bundle.version}.", dir=target.parent))
    try:
        partial.chmod(0o755)
        _copy(bundle, partial)
        _place(partial, target, bundle.version)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(target)


def fetch_bundle(uri: str, to: Path) -> Path:
    """Bring a bundle to this machine and verify it.

    Args:
        uri: What `put_bundle` returned.
        to: A folder to download into; a local bundle stays where it is.

    Returns:
        The bundle's folder.

    Raises:
        BundleError: It is not there or not whole.
        InputError: The URI is of an unknown kind.
        PlatformError: S3 cannot be reached or refuses.
    """
    place = _parse(uri)
    if isinstance(place, Path):
        return Bundle.open(place).path
    target = to / place.key.rsplit("/", 1)[-1]
    if target.exists():
        return Bundle.open(target).path
    to.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".fetch-", dir=to))
    try:
        partial.chmod(0o755)
        _download_bundle(place, partial)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def fetch_into(uri: str, folder: Path) -> Bundle:
    """Bring a bundle into a folder that is there, such as a mount that cannot be renamed, and verify it.

    The manifest comes last, so that what was interrupted is no bundle; a second attempt starts over.

    Args:
        uri: What `put_bundle` returned.
        folder: Made when it is not there.

    Raises:
        BundleError: It is not there or not whole.
        InputError: The URI is of an unknown kind, or the folder is a file.
        PlatformError: S3 cannot be reached or refuses, or the folder cannot be written.
    """
    place = _parse(uri)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: found a file, expected a folder to fetch {uri} into")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
            partial = Path(name)
            if isinstance(place, Path):
                _copy(Bundle.open(place), partial)
            else:
                _download_bundle(place, partial)
            (folder / MANIFEST).unlink(missing_ok=True)
            for file in (*Bundle.open(partial).manifest.files, MANIFEST):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (partial / file).replace(folder / file)
    except OSError as error:
        raise PlatformError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return Bundle.open(folder)


def exists(uri: str) -> bool:
    """Whether a file, a folder or an object is there (for a bundle on S3: its ``bundle.json``).

    Raises:
        InputError: The URI is of an unknown kind.
        PlatformError: S3 cannot be reached or refuses.
    """
    place = _parse(uri)
    if isinstance(place, Path):
        return place.exists()
    return _is_object(place) or _is_object(place.under(MANIFEST))


def _parse(uri: str) -> Path | _Object:
    if "://" not in uri:
        if not uri:
            raise InputError("store: found nothing, expected a path, file:// or s3://bucket/prefix")
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        if not _BUCKET.fullmatch(parts.netloc):
            raise InputError(
                f"{uri}: found bucket {parts.netloc!r}, expected 3 to 63 lower-case letters, digits, '.' "
                "and '-', beginning and ending with a letter or digit"
            )
        return _Object(parts.netloc, parts.path.strip("/"))
    raise InputError(f"{uri}: unknown kind of place, expected a path, file:// or s3://bucket/prefix")


def _whole(target: Path, version: str) -> bool:
    try:
        return Bundle.open(target).version == version
    except BundleError:
        return False


def _place(partial: Path, target: Path, version: str) -> None:
    """Give a whole copy its name; a damaged one that has the name makes way, a whole one stays."""
    aside = partial.with_name(partial.name + ".damaged")
    try:
        if target.exists() and not _whole(target, version):
            target.replace(aside)
        partial.replace(target)
    except OSError:
        if not _whole(target, version):  # else another process was first
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy(bundle: Bundle, to: Path) -> None:
    for name in bundle.manifest.files:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, to / name)
    shutil.copyfile(bundle.path / MANIFEST, to / MANIFEST)
    Bundle.open(to)


def _put_s3(bundle: Bundle, target: _Object) -> str:
    if not _whole_in_s3(target, bundle.version):
        for name in bundle.manifest.files:
            _upload(bundle.path / name, target.under(name))
        # Last: a reader looks at it first, so a copy without it is not there yet.
        _upload(bundle.path / MANIFEST, target.under(MANIFEST))
    return str(target)


def _whole_in_s3(target: _Object, version: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="canaryflow-") as folder:
        try:
            _download_bundle(target, Path(folder))
        except BundleError:
            return False
        return _whole(Path(folder), version)


def _download_bundle(source: _Object, to: Path) -> None:
    try:
        _download(source.under(MANIFEST), to / MANIFEST)
        for name in Bundle.open(to, verify=False).manifest.files:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            _download(source.under(name), to / name)
    except NotFound as error:
        raise BundleError(f"{source}: {error}") from error
    Bundle.open(to)


def _upload(file: Path, target: _Object) -> None:
    with _s3(target) as client:
        client.fput_object(target.bucket, target.key, str(file))


def _download(source: _Object, file: Path) -> None:
    with _s3(source) as client:
        client.fget_object(source.bucket, source.key, str(file))


def _is_object(place: _Object) -> bool:
    try:
        with _s3(place) as client:
            client.stat_object(place.bucket, place.key)
    except NotFound:
        return False
    return True


@contextmanager
def _s3(place: _Object) -> Iterator[Any]:
    """A client of S3; what goes wrong inside becomes one line that names the object."""
    import urllib3
    from minio.error import MinioException, S3Error

    try:
        yield _client()
    except S3Error as error:
        if error.code in _MISSING:
            raise NotFound(f"{place}: no such object") from error
        raise PlatformError(f"{place}: S3 refuses: {error.code}: {error.message}") from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise PlatformError(f"{place}: S3 cannot be reached: {reason}") from error


def _client() -> Any:  # noqa: ANN401 - minio is imported when used
    import urllib3
    from minio import Minio
    from minio.credentials.providers import (
        AWSConfigProvider,
        ChainedProvider,
        EnvAWSProvider,
        IamAwsProvider,
    )

    endpoint = (
        os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("S3_ENDPOINT") or "https://s3.amazonaws.com"
    )
    if "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"AWS_ENDPOINT_URL: found {endpoint!r}, expected http(s)://host[:port]")
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=5.0, read=_TIMEOUT_SECONDS),
        retries=urllib3.Retry(total=_RETRIES, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    )
    return Minio(
        parts.netloc,
        secure=parts.scheme == "https",
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        credentials=ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider()]),
        http_client=pool,
    )


def main(arguments: Sequence[str]) -> int:
    """Fetch a bundle into a folder: ``fetch URI DIR``.

    Returns:
        0 when it is there and whole, 2 after one line that says why it is not.
    """
    try:
        if len(arguments) != 3 or arguments[0] != "fetch":
            found = " ".join(arguments) or "nothing"
            raise InputError(f"python -m canaryflow.storage: found {found}, expected fetch URI DIR")
        bundle = fetch_into(arguments[1], Path(arguments[2]))
    except CanaryflowError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{bundle.manifest.name} {bundle.version}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
