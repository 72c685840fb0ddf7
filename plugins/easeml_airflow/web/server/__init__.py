"""What every request passes: site, authentication, throttling, formats, uploads."""
