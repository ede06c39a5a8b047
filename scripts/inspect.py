"""Show what a checkpoint is and which precision is safe for it: `python scripts/inspect.py CHECKPOINT`."""

if __name__ == "__main__":
    from irformer.entry import inspect

    inspect()
else:
    # Python looks for modules in the folder of a script first, so that all scripts here find this file as the standard library's `inspect`.
    import sys
    from importlib import util
    from importlib.machinery import PathFinder
    from pathlib import Path

    here = Path(__file__).resolve().parent
    spec = PathFinder.find_spec(__name__, [folder for folder in sys.path if Path(folder).resolve() != here])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[__name__] = util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])
