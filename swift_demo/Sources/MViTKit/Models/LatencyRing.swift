/// The latest latencies of a model, and what they come to.
public struct LatencyRing: Hashable, Sendable {
  /// How many of the latest latencies are kept.
  public let capacity: Int
  /// How many of the first ones are left out.
  public let warmUp: Int
  private var seconds: [Double] = []
  private var finishTimes: [Double] = []
  private var next = 0
  private var skipped = 0

  /// An empty ring.
  ///
  /// - Parameters:
  ///   - capacity: how many of the latest latencies to keep, at least 1.
  ///   - warmUp: how many of the first ones to leave out.
  public init(capacity: Int = 120, warmUp: Int = 0) {
    self.capacity = max(1, capacity)
    self.warmUp = max(0, warmUp)
  }

  /// Adds a latency; the oldest makes room for it.
  ///
  /// - Parameters:
  ///   - latency: in seconds.
  ///   - time: when it was over, in seconds of any clock that only goes forward.
  public mutating func record(seconds latency: Double, finishedAt time: Double) {
    guard skipped >= warmUp else {
      skipped += 1
      return
    }
    if seconds.count < capacity {
      seconds.append(latency)
      finishTimes.append(time)
    } else {
      seconds[next] = latency
      finishTimes[next] = time
    }
    next = (next + 1) % capacity
  }

  /// Forgets everything; the warm-up begins anew.
  public mutating func reset() {
    self = LatencyRing(capacity: capacity, warmUp: warmUp)
  }

  /// Number of latencies kept.
  public var count: Int { seconds.count }
  /// The latency that half of them stay below, in seconds.
  public var median: Double? { percentile(50) }
  /// The latency that 19 out of 20 stay below, in seconds.
  public var p95: Double? { percentile(95) }
  /// The mean latency, in seconds.
  public var mean: Double? { count == 0 ? nil : seconds.reduce(0, +) / Double(count) }
  /// The lowest latency, in seconds.
  public var minimum: Double? { seconds.min() }
  /// The highest latency, in seconds.
  public var maximum: Double? { seconds.max() }

  /// Results a second, by the times at which they came; `nil` before the second.
  public var framesPerSecond: Double? {
    guard let first = finishTimes.min(), let last = finishTimes.max(), last > first else {
      return nil
    }
    return Double(count - 1) / (last - first)
  }

  /// The latency that a part of them stays below, between neighbours in proportion.
  ///
  /// - Parameter percent: from 0 to 100.
  /// - Returns: seconds, `nil` without latencies.
  public func percentile(_ percent: Double) -> Double? {
    guard count > 0 else { return nil }
    let sorted = seconds.sorted()
    let position = min(max(percent, 0), 100) / 100 * Double(count - 1)
    let lower = Int(position)
    let upper = min(lower + 1, count - 1)
    return sorted[lower] + (sorted[upper] - sorted[lower]) * (position - Double(lower))
  }
}
