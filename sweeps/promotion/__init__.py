"""An address that models registered by earlier versions have recorded; the code is in `sweeps/serving`."""
