"""Operations on runs: resuming, sweeps and comparisons."""
