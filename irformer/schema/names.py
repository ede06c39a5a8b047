"""Names that users give to runs and sweeps: they become folders, and are typed again after `resume=` and `checkpoint=`."""

_MOST_BYTES = 200  # file systems end at 255, and temporary files add to a name
EXPECTED = (
    f"a folder name of at most {_MOST_BYTES} bytes, without / or \\ or control characters, that does not start with . or - or a space"
)


def is_folder_name(name: str) -> bool:
    """Whether a text can name a folder on every file system and be typed again."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # surrogates of a name that is not UTF-8
        return False
    return 0 < size <= _MOST_BYTES and name.isprintable() and not set(name) & set("/\\") and name[0] not in ".- " and name == name.strip()
