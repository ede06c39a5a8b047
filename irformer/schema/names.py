"""Names of runs and sweeps, which become folder names and are typed again after `resume=` and `checkpoint=`."""

_MAX_BYTES = 200  # file systems allow 255, and temporary files have longer names
EXPECTED = f"a folder name of at most {_MAX_BYTES} bytes, without / or \\ or control characters, that does not start with . or - or a space"


def is_folder_name(name: str) -> bool:
    """Return whether a text is valid as a folder name on every file system and easy to type."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # surrogates from a name that is not UTF-8
        return False
    return 0 < size <= _MAX_BYTES and name.isprintable() and not set(name) & set("/\\") and name[0] not in ".- " and name == name.strip()
