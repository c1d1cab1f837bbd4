"""How a run is spread over processes: replicated, fully sharded (FSDP2), or DeepSpeed's ZeRO."""
