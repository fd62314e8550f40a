import Foundation

/// Why an output is no class map.
public struct ClassMapError: Error, Hashable, Sendable, CustomStringConvertible, LocalizedError {
  /// What is wrong, as a sentence.
  public let description: String

  /// The same sentence.
  public var errorDescription: String? { description }
}

/// A class for every pixel or cell of a picture.
public struct ClassMap: Hashable, Sendable {
  /// Columns and rows.
  public let size: PixelSize
  /// Class indices, row by row from the top.
  public let classes: [Int32]
  /// How sure the model is of every cell's class, from 0 to 1; `nil` where the package does not say,
  /// and of a map that was laid back on its picture.
  public private(set) var confidence: [Float]?

  /// Number of columns.
  public var width: Int { size.width }
  /// Number of rows.
  public var height: Int { size.height }

  /// A map of known classes.
  ///
  /// - Throws: ``ClassMapError`` if there is not one class a cell.
  public init(size: PixelSize, classes: [Int32]) throws(ClassMapError) {
    guard size.width > 0, size.height > 0, classes.count == size.area else {
      throw ClassMapError(description: "\(classes.count) classes do not make a map of \(size)")
    }
    self.init(checked: size, classes)
  }

  init(checked size: PixelSize, _ classes: [Int32]) {
    self.size = size
    self.classes = classes
  }

  /// The class of a cell.
  public subscript(x: Int, y: Int) -> Int32 { classes[y * width + x] }

  /// Reads an output that holds class indices.
  ///
  /// Rows and planes may be padded, as they are on the Neural Engine: positions come from the
  /// strides alone.
  ///
  /// - Parameters:
  ///   - classes: the output's memory.
  ///   - shape: (height, width), with any number of ones before them.
  ///   - strides: distance of neighbours along each axis, in elements.
  /// - Throws: ``ClassMapError`` for another shape, or memory that is too small for it.
  public init<Index: FixedWidthInteger>(
    classes: UnsafeBufferPointer<Index>, shape: [Int], strides: [Int]
  ) throws(ClassMapError) {
    let layout = try PlaneLayout(shape: shape, strides: strides, count: classes.count)
    guard layout.planes == 1 else {
      throw ClassMapError(description: "the shape \(shape) is not (height, width)")
    }
    var values: [Int32] = []
    values.reserveCapacity(layout.size.area)
    for y in 0..<layout.size.height {
      for x in 0..<layout.size.width {
        let index = classes[y * layout.rowStride + x * layout.columnStride]
        values.append(Int32(truncatingIfNeeded: index))
      }
    }
    self.init(checked: layout.size, values)
  }

  /// Adds how sure the model is of every cell's class.
  ///
  /// - Parameters:
  ///   - confidence: the output's memory.
  ///   - shape: (height, width) as of the map, with any number of ones before them.
  ///   - strides: distance of neighbours along each axis, in elements.
  /// - Throws: ``ClassMapError`` for another shape than the map's, or memory that is too small.
  public mutating func add(
    confidence values: UnsafeBufferPointer<Float>, shape: [Int], strides: [Int]
  ) throws(ClassMapError) {
    let layout = try PlaneLayout(shape: shape, strides: strides, count: values.count)
    guard layout.planes == 1, layout.size == size else {
      throw ClassMapError(description: "the shape \(shape) is not that of a map of \(size)")
    }
    confidence = (0..<size.area).map { cell in
      values[cell / width * layout.rowStride + cell % width * layout.columnStride]
    }
  }

  /// Reads an output that holds a score for every class and position, and takes the highest.
  ///
  /// Of equal scores the lower class index wins. A score that is not a number never does.
  ///
  /// - Parameters:
  ///   - scores: the output's memory.
  ///   - shape: (classes, height, width), with any number of ones before them.
  ///   - strides: distance of neighbours along each axis, in elements.
  /// - Throws: ``ClassMapError`` for another shape, or memory that is too small for it.
  public init(
    scores: UnsafeBufferPointer<Float>, shape: [Int], strides: [Int]
  ) throws(ClassMapError) {
    let layout = try PlaneLayout(scoreShape: shape, strides: strides, count: scores.count)
    var best = [Float](repeating: -.infinity, count: layout.size.area)
    var classes = [Int32](repeating: 0, count: layout.size.area)
    for plane in 0..<layout.planes {
      var cell = 0
      for y in 0..<layout.size.height {
        var position = plane * layout.planeStride + y * layout.rowStride
        for _ in 0..<layout.size.width {
          if scores[position] > best[cell] {
            best[cell] = scores[position]
            classes[cell] = Int32(plane)
          }
          position += layout.columnStride
          cell += 1
        }
      }
    }
    self.init(checked: layout.size, classes)
  }
}

/// Where the numbers of a multi-dimensional output lie.
struct PlaneLayout {
  let size: PixelSize
  let planes: Int
  let planeStride: Int
  let rowStride: Int
  let columnStride: Int

  /// Checks an output of (classes, height, width); a single class has the one plane, too.
  init(scoreShape shape: [Int], strides: [Int], count: Int) throws(ClassMapError) {
    guard shape.count >= 3 else {
      throw ClassMapError(description: "the shape \(shape) is not (classes, height, width)")
    }
    self = try PlaneLayout(shape: shape, strides: strides, count: count)
  }

  /// Checks an output of (…, height, width).
  init(shape: [Int], strides: [Int], count: Int) throws(ClassMapError) {
    let axes = shape.count
    guard axes >= 2, strides.count == axes, shape.allSatisfy({ (1...maximumEdge).contains($0) }),
      shape.dropLast(3).allSatisfy({ $0 == 1 })
    else {
      throw ClassMapError(
        description: "the shape \(shape) with strides \(strides) is not that of a map")
    }
    size = PixelSize(width: shape[axes - 1], height: shape[axes - 2])
    planes = axes > 2 ? shape[axes - 3] : 1
    planeStride = axes > 2 ? strides[axes - 3] : 0
    rowStride = strides[axes - 2]
    columnStride = strides[axes - 1]
    let last = zip(shape, strides).reduce(0) { $0 + ($1.0 - 1) * $1.1 }
    guard strides.allSatisfy({ (0...1 << 32).contains($0) }), last < count else {
      throw ClassMapError(
        description: "\(count) elements do not hold the shape \(shape) with strides \(strides)")
    }
  }
}
