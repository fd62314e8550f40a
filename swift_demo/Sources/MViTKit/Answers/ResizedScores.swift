extension ClassMap {
  /// Reads an output of scores, enlarges them, and then takes the highest.
  ///
  /// Edges come out smoother than those of an enlarged class map. Positions are those of PyTorch's
  /// bilinear `interpolate` with `align_corners=False`.
  ///
  /// - Parameters:
  ///   - scores: the output's memory.
  ///   - shape: (classes, height, width), with any number of ones before them.
  ///   - strides: distance of neighbours along each axis, in elements.
  ///   - size: columns and rows of the map.
  /// - Throws: ``ClassMapError`` for another shape, memory that is too small, or an empty size.
  public init(
    scores: UnsafeBufferPointer<Float>, shape: [Int], strides: [Int], resizedTo size: PixelSize
  ) throws(ClassMapError) {
    let layout = try PlaneLayout(scoreShape: shape, strides: strides, count: scores.count)
    guard (1...maximumEdge).contains(size.width), (1...maximumEdge).contains(size.height) else {
      throw ClassMapError(description: "a map cannot have \(size) cells")
    }
    let columns = blends(from: layout.size.width, to: size.width)
    let rows = blends(from: layout.size.height, to: size.height)
    var best = [Float](repeating: -.infinity, count: size.area)
    var classes = [Int32](repeating: 0, count: size.area)
    for plane in 0..<layout.planes {
      var cell = 0
      for row in rows {
        let upper = plane * layout.planeStride + row.first * layout.rowStride
        let lower = plane * layout.planeStride + row.second * layout.rowStride
        for column in columns {
          let (left, right) = (
            column.first * layout.columnStride, column.second * layout.columnStride
          )
          let above = blend(scores[upper + left], scores[upper + right], column.weight)
          let below = blend(scores[lower + left], scores[lower + right], column.weight)
          let score = blend(above, below, row.weight)
          if score > best[cell] {
            best[cell] = score
            classes[cell] = Int32(plane)
          }
          cell += 1
        }
      }
    }
    self.init(checked: size, classes)
  }
}

/// Two neighbouring cells and the weight of the second.
private struct Blend {
  let first: Int
  let second: Int
  let weight: Float
}

private func blends(from sourceLength: Int, to targetLength: Int) -> [Blend] {
  let scale = Float(sourceLength) / Float(targetLength)
  return (0..<targetLength).map { target in
    let position = max(0, (Float(target) + 0.5) * scale - 0.5)
    let first = min(Int(position), sourceLength - 1)
    return Blend(
      first: first, second: min(first + 1, sourceLength - 1), weight: position - Float(first))
  }
}

@inline(__always)
private func blend(_ first: Float, _ second: Float, _ weight: Float) -> Float {
  first * (1 - weight) + second * weight
}
