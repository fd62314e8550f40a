/// A colour for every class.
public struct ClassPalette: Hashable, Sendable {
  /// The colours, in order of class index.
  public let colors: [RGBColor]

  /// A palette of these colours.
  public init(colors: [RGBColor]) {
    self.colors = colors
  }

  /// The colours that a conversion gives classes of these names.
  ///
  /// The 21 classes of PASCAL VOC have its own colours; others are easy to tell apart, after a
  /// black background if that comes first.
  public init(labels: [String]) {
    let names = labels.map { $0.lowercased() }
    if names.count == 21, names[1] == "aeroplane", names[15] == "person" {
      self = .voc(21)
    } else if names.first == "background" {
      colors = ClassPalette.voc(1).colors + ClassPalette.distinct(names.count - 1).colors
    } else {
      self = .distinct(names.count)
    }
  }

  /// The colour of a class; `nil` for a class without one.
  public subscript(index: Int) -> RGBColor? {
    colors.indices.contains(index) ? colors[index] : nil
  }

  /// The colour map of PASCAL VOC, of at most 256 colours.
  ///
  /// The bits of an index, three at a time from the lowest, are the bits of red, green and blue
  /// from the highest.
  public static func voc(_ count: Int) -> ClassPalette {
    let colors = (0..<min(max(count, 0), 256)).map { index in
      var channels: [UInt8] = [0, 0, 0]
      for bit in 0..<8 {
        for channel in 0..<3 {
          channels[channel] |= UInt8((index >> (3 * bit + channel)) & 1) << UInt8(7 - bit)
        }
      }
      return RGBColor(red: channels[0], green: channels[1], blue: channels[2])
    }
    return ClassPalette(colors: colors)
  }

  /// Colours that are easy to tell apart, at most 4094, for packages without colours of their own.
  ///
  /// Each is the one farthest from all before it and from black and white, so the first ones do not
  /// depend on how many follow. A conversion gives its packages the same.
  public static func distinct(_ count: Int) -> ClassPalette {
    let levels = stride(from: 0, through: 255, by: 17).map { Double($0) }
    var grid: [(Double, Double, Double)] = []
    for red in levels {
      for green in levels {
        for blue in levels { grid.append((red, green, blue)) }
      }
    }
    func distance(_ one: (Double, Double, Double), _ other: (Double, Double, Double)) -> Double {
      let (red, green, blue) = (one.0 - other.0, one.1 - other.1, one.2 - other.2)
      // Weights of "redmean" at mid red: how much a difference in each channel is seen.
      return 2.5 * red * red + 4 * green * green + 2.5 * blue * blue
    }
    var nearest = grid.map { min(distance($0, (0, 0, 0)), distance($0, (255, 255, 255))) }
    var colors: [RGBColor] = []
    for _ in 0..<min(max(count, 0), grid.count - 2) {
      var farthest = 0
      for index in nearest.indices where nearest[index] > nearest[farthest] { farthest = index }
      let color = grid[farthest]
      colors.append(RGBColor(red: UInt8(color.0), green: UInt8(color.1), blue: UInt8(color.2)))
      for index in grid.indices {
        nearest[index] = min(nearest[index], distance(grid[index], color))
      }
    }
    return ClassPalette(colors: colors)
  }
}
