/// For every target pixel along one axis: which source pixels it is made of, and their weights.
///
/// The weights are the fixed-point numbers of Pillow's 8-bit resize, so that sums agree bit for bit.
struct Taps {
  /// Bits after the binary point of a weight; 8 bits of pixel and 2 of overshoot are left.
  static let precision = 32 - 8 - 2
  /// What a sum starts from, so that the shift rounds it.
  static let half: Int32 = 1 << (precision - 1)

  /// Target pixels that there are entries for.
  let outputs: Range<Int>
  /// First source pixel of each.
  private(set) var starts: [Int] = []
  /// Number of source pixels of each.
  private(set) var counts: [Int] = []
  /// Weights of all, `stride` for each target pixel.
  private(set) var weights: [Int32] = []
  /// Distance between the first weights of two neighbours.
  let stride: Int

  /// Source pixels that any target pixel is made of.
  private(set) var inputs: Range<Int> = 0..<0

  /// Prepares one axis of a resize.
  ///
  /// - Parameters:
  ///   - sourceLength: pixels along the axis of the upright source.
  ///   - targetLength: pixels along the axis of the resized image; the same length copies.
  ///   - outputs: the part of the resized image that is wanted.
  ///   - filter: the filter.
  ///   - isReversed: whether the source is stored against the axis.
  init(
    from sourceLength: Int, to targetLength: Int, outputs: Range<Int>, filter: ResampleFilter,
    isReversed: Bool
  ) {
    self.outputs = outputs
    let scale = Double(sourceLength) / Double(targetLength)
    if sourceLength == targetLength || filter == .nearest {
      stride = 1
      setNearest(sourceLength: sourceLength, scale: scale)
    } else {
      stride = Int((filter.support * max(scale, 1)).rounded(.up)) * 2 + 1
      setFiltered(sourceLength: sourceLength, scale: scale, filter: filter)
    }
    if isReversed { reverse(sourceLength: sourceLength) }
    inputs = (starts.min() ?? 0)..<(zip(starts, counts).map { $0 + $1 }.max() ?? 0)
  }

  private mutating func setNearest(sourceLength: Int, scale: Double) {
    counts = Array(repeating: 1, count: outputs.count)
    weights = Array(repeating: 1 << Self.precision, count: outputs.count)
    // Pillow adds up the positions, and so must whoever wants the same rounding errors.
    var position = scale * 0.5
    for output in 0..<outputs.upperBound {
      if output >= outputs.lowerBound { starts.append(min(Int(position), sourceLength - 1)) }
      position += scale
    }
  }

  private mutating func setFiltered(sourceLength: Int, scale: Double, filter: ResampleFilter) {
    let filterScale = max(scale, 1)
    let support = filter.support * filterScale
    let one = Double(1 << Self.precision)
    starts.reserveCapacity(outputs.count)
    counts.reserveCapacity(outputs.count)
    weights = Array(repeating: 0, count: outputs.count * stride)
    var values = [Double](repeating: 0, count: stride)
    for (entry, output) in outputs.enumerated() {
      let center = (Double(output) + 0.5) * scale
      let start = max(0, Int(center - support + 0.5))
      let count = min(sourceLength, Int(center + support + 0.5)) - start
      var sum = 0.0
      for tap in 0..<count {
        let distance = (Double(tap + start) - center + 0.5) * (1 / filterScale)
        values[tap] = filter.weight(at: distance)
        sum += values[tap]
      }
      for tap in 0..<count {
        let value = sum == 0 ? values[tap] : values[tap] / sum
        weights[entry * stride + tap] = Int32(value * one + (value < 0 ? -0.5 : 0.5))
      }
      starts.append(start)
      counts.append(count)
    }
  }

  private mutating func reverse(sourceLength: Int) {
    for entry in starts.indices {
      starts[entry] = sourceLength - starts[entry] - counts[entry]
      let first = entry * stride
      weights[first..<first + counts[entry]].reverse()
    }
  }
}
