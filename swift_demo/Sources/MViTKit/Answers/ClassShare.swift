/// How much of a picture a class covers.
public struct ClassShare: Hashable, Sendable, Identifiable {
  /// Class index.
  public let classIndex: Int
  /// Number of cells.
  public let count: Int
  /// Part of all cells, from 0 to 1.
  public let fraction: Double

  /// The class index.
  public var id: Int { classIndex }
}

extension ClassMap {
  /// Returns the classes that occur, the largest first and the lower index first among equals.
  public func shares() -> [ClassShare] {
    var counts: [Int32: Int] = [:]
    for index in classes { counts[index, default: 0] += 1 }
    return counts.map { index, count in
      ClassShare(
        classIndex: Int(index), count: count, fraction: Double(count) / Double(classes.count))
    }
    .sorted { ($1.count, $0.classIndex) < ($0.count, $1.classIndex) }
  }
}
