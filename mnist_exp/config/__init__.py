"""From overrides to a checked config. No other package sees OmegaConf."""
