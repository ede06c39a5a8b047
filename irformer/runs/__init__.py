"""Operations on runs: resuming, sweeps, arms and comparisons."""
