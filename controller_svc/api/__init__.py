"""The front door: seal.v1.AdaptationService over any world that keeps adaptations."""
