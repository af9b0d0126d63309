"""Recording: what every sensor delivered, each sample with its own stamp, in files that survive a crash.

``recorder`` takes samples from rings; ``tracks`` turns them into messages; ``mcap_file`` and ``disk`` write
them; ``repair`` mends what a crash left; ``reader`` gives it all back.
"""
