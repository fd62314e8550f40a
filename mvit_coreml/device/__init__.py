"""What Apple's own tools measure: Xcode's performance reports, compiled models and benchmarks."""
