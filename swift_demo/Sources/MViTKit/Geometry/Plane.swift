/// A point, in pixels of an image or in points of a view; y grows downwards.
///
/// Pixel (0, 0) covers the square from 0 to 1, so its centre is at (0.5, 0.5).
public struct PlanePoint: Hashable, Sendable {
  /// Distance from the left edge.
  public var x: Double
  /// Distance from the top edge.
  public var y: Double

  /// A point at (`x`, `y`).
  public init(x: Double, y: Double) {
    self.x = x
    self.y = y
  }
}

/// A width and a height that need not be whole, such as a view's size in points.
public struct PlaneSize: Hashable, Sendable {
  /// Length from left to right.
  public var width: Double
  /// Length from top to bottom.
  public var height: Double

  /// An extent of `width` by `height`.
  public init(width: Double, height: Double) {
    self.width = width
    self.height = height
  }

  /// The extent of an image in its own pixels.
  public init(_ size: PixelSize) {
    self.init(width: Double(size.width), height: Double(size.height))
  }
}

/// A rectangle; right and bottom lie outside it.
public struct PlaneBox: Hashable, Sendable {
  /// Left edge.
  public var left: Double
  /// Top edge.
  public var top: Double
  /// Right edge.
  public var right: Double
  /// Bottom edge.
  public var bottom: Double

  /// The rectangle between four edges.
  public init(left: Double, top: Double, right: Double, bottom: Double) {
    self.left = left
    self.top = top
    self.right = right
    self.bottom = bottom
  }

  /// The rectangle of an extent whose top left corner is the origin.
  public init(_ extent: PlaneSize) {
    self.init(left: 0, top: 0, right: extent.width, bottom: extent.height)
  }

  /// Length from left to right.
  public var width: Double { right - left }
  /// Length from top to bottom.
  public var height: Double { bottom - top }

  /// Whether a point lies inside; the right and bottom edges do not.
  public func contains(_ position: PlanePoint) -> Bool {
    position.x >= left && position.x < right && position.y >= top && position.y < bottom
  }

  /// Where a point of this rectangle lies in another, in proportion.
  public func map(_ position: PlanePoint, to other: PlaneBox) -> PlanePoint {
    PlanePoint(
      x: other.left + (position.x - left) * (other.width / width),
      y: other.top + (position.y - top) * (other.height / height)
    )
  }
}
