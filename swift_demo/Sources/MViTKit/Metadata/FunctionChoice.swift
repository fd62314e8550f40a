/// Which function of a package to use.
public enum FunctionChoice: Hashable, Sendable {
  /// The one with the smallest input: the fastest.
  case smallest
  /// The one with the largest input: the most precise.
  case largest
  /// The one of a name.
  case named(String)
  /// The smallest that covers a size; if there is none, the largest.
  case atLeast(PixelSize)
}

extension PackageMetadata {
  /// Chooses a function.
  ///
  /// A package with one function has the one choice, whatever its size; load it without a name, so
  /// that it works before iOS 18, too.
  ///
  /// - Throws: ``MetadataError`` for a name that the package does not have.
  public func function(_ choice: FunctionChoice) throws(MetadataError) -> PackageFunction {
    let found: PackageFunction?
    switch choice {
    case .smallest: found = functions.first
    case .largest: found = functions.last
    case .named(let name): found = functions.first { $0.name == name }
    case .atLeast(let size):
      found =
        functions.first {
          $0.inputSize.width >= size.width && $0.inputSize.height >= size.height
        } ?? functions.last
    }
    guard let found else {
      let names = functions.map(\.name).joined(separator: ", ")
      throw MetadataError(
        key: MetadataKeys.preprocessing,
        problem: "describes no function of the wanted name; there are \(names)")
    }
    return found
  }
}
