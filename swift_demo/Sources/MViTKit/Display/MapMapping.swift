/// Where the cells of a class map lie on the upright image.
public struct MapMapping: Hashable, Sendable {
  /// How the image was fitted to the model's input.
  public let placement: Placement
  /// Columns and rows of the map of the whole input.
  public let mapSize: PixelSize

  /// Relates a map to its image.
  public init(placement: Placement, mapSize: PixelSize) {
    self.placement = placement
    self.mapSize = mapSize
  }

  private var inputBox: PlaneBox { PlaneBox(PlaneSize(placement.inputSize)) }
  private var cellBox: PlaneBox { PlaneBox(PlaneSize(mapSize)) }

  /// Where the whole map lies on the upright image, beyond its edges where the input is padded.
  public var mapBox: PlaneBox {
    let first = placement.image(fromInput: PlanePoint(x: 0, y: 0))
    let last = placement.image(fromInput: PlanePoint(x: inputBox.right, y: inputBox.bottom))
    return PlaneBox(left: first.x, top: first.y, right: last.x, bottom: last.y)
  }

  /// The cell over a point of the upright image; `nil` where the input did not show it.
  public func cell(atImage position: PlanePoint) -> (x: Int, y: Int)? {
    let input = placement.input(fromImage: position)
    guard placement.valid.contains(input) else { return nil }
    let found = inputBox.map(input, to: cellBox)
    return (min(Int(found.x), mapSize.width - 1), min(Int(found.y), mapSize.height - 1))
  }

  /// The class over a point of the upright image; `nil` where the input did not show it.
  public func classIndex(at position: PlanePoint, in map: ClassMap) -> Int? {
    guard map.size == mapSize, let cell = cell(atImage: position) else { return nil }
    return Int(map[cell.x, cell.y])
  }

  /// Where a point of the map, in cells, lies on the upright image.
  public func image(fromMap position: PlanePoint) -> PlanePoint {
    placement.image(fromInput: cellBox.map(position, to: inputBox))
  }
}
